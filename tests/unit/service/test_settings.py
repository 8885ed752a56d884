from pathlib import Path

import pytest

from service.errors import UsageError
from service.evidence.engines import database_url
from service.settings import Settings


def test_defaults_serve_this_machine_from_one_folder() -> None:
    settings = Settings.load({})
    assert settings.binds_loopback
    assert settings.registry == Path("explaind-data/registry")
    assert settings.secret_file == Path("explaind-data/secret")
    assert settings.database_url.endswith("/explaind-data/evidence.db")
    assert settings.keys_database_url.endswith("/explaind-data/keys.db")
    assert settings.key_encryption_key_file == Path("explaind-data/key-encryption-key")
    assert settings.encryption


@pytest.mark.parametrize("name", ["data", "a b", "a%20b", "a?b=c", "a#b", "a:b@c", "ü"])
def test_evidence_lies_in_the_data_directory_whatever_its_name(name: str) -> None:
    settings = Settings.load({}, data_dir=Path("/srv") / name)
    assert database_url(settings.database_url).database == f"/srv/{name}/evidence.db"
    assert database_url(settings.database_url).query == {}


def test_flags_win_over_the_environment() -> None:
    environ = {"EXPLAIND_PORT": "9000", "EXPLAIND_HOST": "::1"}
    settings = Settings.load(environ, port=9001, host=None)
    assert (settings.port, settings.host) == (9001, "::1")


def test_an_empty_variable_is_not_set() -> None:
    assert Settings.load({"EXPLAIND_PORT": ""}).port == 8000


def test_directories_and_urls_come_from_their_own_settings() -> None:
    environ = {
        "EXPLAIND_REGISTRY": "/srv/registry",
        "EXPLAIND_SECRET_FILE": "/run/secret",
        "EXPLAIND_DATABASE_URL": "postgresql+psycopg://db/evidence",
    }
    settings = Settings.load(environ)
    assert settings.registry == Path("/srv/registry")
    assert settings.secret_file == Path("/run/secret")
    assert settings.database_url == "postgresql+psycopg://db/evidence"


def test_keys_are_kept_beside_evidence_only_in_postgresql_and_unasked() -> None:
    environ = {"EXPLAIND_DATABASE_URL": "postgresql+psycopg://db/evidence"}
    settings = Settings.load(environ)
    assert settings.keys_database_url == settings.database_url
    assert settings.keeps_keys_beside_evidence
    apart = Settings.load({**environ, "EXPLAIND_KEYS_DATABASE_URL": "sqlite:////srv/keys.db"})
    assert apart.keys_database_url == "sqlite:////srv/keys.db"
    assert not apart.keeps_keys_beside_evidence
    assert not Settings.load(
        {"EXPLAIND_DATABASE_URL": "sqlite:////x.db"}
    ).keeps_keys_beside_evidence


def test_the_key_itself_is_no_setting_and_no_misspelling() -> None:
    environ = {"EXPLAIND_KEY_ENCRYPTION_KEY": "00" * 32}
    assert Settings.load(environ) == Settings.load({})
    assert Settings.unknown_variables(environ) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("MAX_INSTANCES", "0"),
        ("RETENTION_DAYS", "-1"),
        ("WAIT_SECONDS", "inf"),
        ("WAIT_SECONDS", "1e14"),
        ("LEASE_SECONDS", "nan"),
        ("JOB_TIME_LIMIT_SECONDS", "inf"),
        ("EXPLANATION_DEADLINE_SECONDS", "inf"),
        ("EXPLANATION_DEADLINE_SECONDS", "1e14"),
    ],
)
def test_a_bad_value_is_refused_by_the_variables_name(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"EXPLAIND_{name}"):
        Settings.load({f"EXPLAIND_{name}": value})


def test_misspelt_variables_are_told_and_those_of_the_tests_are_not() -> None:
    environ = {"EXPLAIND_MAX_INSTANCE": "5", "EXPLAIND_PORT": "1", "EXPLAIND_TEST_DATA": "/x"}
    assert Settings.unknown_variables(environ) == ["EXPLAIND_MAX_INSTANCE"]


def test_what_was_given_is_handed_on_and_defaults_are_not() -> None:
    given = Settings.load({"EXPLAIND_LEASE_SECONDS": "2.5"}, data_dir=Path("/srv"), port=0)
    environment = given.environment()
    assert environment == {
        "EXPLAIND_LEASE_SECONDS": "2.5",
        "EXPLAIND_DATA_DIR": "/srv",
        "EXPLAIND_PORT": "0",
    }
    assert Settings.load(environment) == given


@pytest.mark.parametrize(
    "address", ["http://:80/", "http://host:99999/", "http://host:0/", "http://a..b/", "http://[x/"]
)
def test_a_webhook_that_cannot_be_called_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="EXPLAIND_RETRAIN_WEBHOOK_URL"):
        Settings.load({"EXPLAIND_RETRAIN_WEBHOOK_URL": address})
    taken = "https://hooks.example:8443/retrain?team=risk"
    assert Settings.load({"EXPLAIND_RETRAIN_WEBHOOK_URL": taken}).retrain_webhook_url == taken


def test_a_drift_window_longer_than_windows_are_kept_is_refused() -> None:
    with pytest.raises(UsageError, match="EXPLAIND_DRIFT_RETENTION_DAYS"):
        Settings.load({"EXPLAIND_DRIFT_WINDOW_HOURS": "841"})
    assert Settings.load({"EXPLAIND_DRIFT_WINDOW_HOURS": "840"}).drift_window_hours == 840
    kept = {"EXPLAIND_DRIFT_WINDOW_HOURS": "841", "EXPLAIND_DRIFT_RETENTION_DAYS": "36"}
    assert Settings.load(kept).drift_retention_days == 36
