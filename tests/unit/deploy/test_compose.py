"""The compose file: valid, and naming nothing that is not there."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from deployment import DEPLOY, Document, documents, values_of
from jsonschema import ValidationError
from jsonschema.validators import validator_for
from typer.main import get_command

from service.auth import KeyFile
from service.cli import app
from service.server import GRACE_SECONDS
from service.settings import KEY_ENCRYPTION_KEY, PREFIX, Settings

CLOSING_SECONDS = 10
(COMPOSE,) = documents(DEPLOY / "compose.yaml")
SERVICES: dict[str, Document] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "explaind"]


def validate(document: Document) -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    validator_for(schema)(schema).validate(document)


def test_it_follows_the_compose_specification() -> None:
    validate(COMPOSE)


def test_a_misspelt_key_is_refused() -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["api"]["depend_on"] = broken["services"]["api"].pop("depends_on")
    with pytest.raises(ValidationError):
        validate(broken)


def used(kind: str) -> set[str]:
    return {name for service in SERVICES.values() for name in service.get(kind, ())}


def test_secrets_networks_and_services_named_are_declared_and_no_others() -> None:
    assert used("secrets") == set(COMPOSE["secrets"])
    assert used("networks") == set(COMPOSE["networks"])
    assert used("depends_on") <= set(SERVICES)
    for service in SERVICES.values():
        for name, wanted in dict.fromkeys(service.get("depends_on", ())).items():
            del wanted
            if isinstance(service["depends_on"], dict):
                assert "test" in SERVICES[name]["healthcheck"]


def test_volumes_are_declared_or_lie_in_the_repository() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    sources = {mount.partition(":")[0] for mount in mounts}
    declared = {name for name in sources if not name.startswith(".")}
    assert declared == set(COMPOSE["volumes"])
    assert all((DEPLOY / name).exists() for name in sources - declared)


def environment(name: str) -> dict[str, str]:
    return dict(SERVICES[name]["environment"])


@pytest.mark.parametrize("name", OURS)
def test_variables_are_settings_with_values_that_hold(name: str) -> None:
    given = environment(name)
    assert set(given) <= {PREFIX + setting.upper() for setting in Settings.names()}
    assert KEY_ENCRYPTION_KEY not in given  # it would be shown by `docker inspect`
    assert Settings.load(given).redis_url == "redis://valkey:6379"


@pytest.mark.parametrize("name", OURS)
def test_every_secret_is_given_to_who_names_it_and_to_nobody_else(name: str) -> None:
    paths = {value for value in environment(name).values() if value.startswith("/run/secrets/")}
    assert {Path(path).name for path in paths} == set(SERVICES[name]["secrets"])


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights_and_write_only_to_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - the container's
    assert "no-new-privileges:true" in service["security_opt"]
    registry = {mount for mount in service["volumes"] if mount.startswith("registry:")}
    assert registry == {"registry:/registry" + ("" if name == "explaind" else ":ro")}


def test_nothing_is_open_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_nobody_is_killed_before_the_service_has_had_its_time_to_end() -> None:
    drain = Settings.load(environment("api")).drain_seconds
    given = int(SERVICES["api"]["stop_grace_period"].removesuffix("s"))
    assert given >= drain + GRACE_SECONDS + CLOSING_SECONDS


def test_commands_and_their_options_exist() -> None:
    commands: Any = get_command(app)
    command, *options = SERVICES["worker"]["command"]
    known = {option for p in commands.commands[command].params for option in p.opts}
    assert {word for word in options if word.startswith("--")} <= known


def mounted(service: str, path: str) -> Path:
    """The file of the repository behind a path in a container."""
    for mount in SERVICES[service]["volumes"]:
        source, target, *_ = mount.split(":")
        if source.startswith(".") and (path == target or path.startswith(target + "/")):
            return DEPLOY / source / path.removeprefix(target).lstrip("/")
    raise AssertionError(f"{path} is on no volume of {service}")


def prometheus_config() -> Document:
    """The configuration Prometheus is started with."""
    (option,) = [o for o in SERVICES["prometheus"]["command"] if o.startswith("--config.file=")]
    return documents(mounted("prometheus", option.partition("=")[2]))[0]


def test_prometheus_scrapes_services_there_are_with_the_key_it_is_given() -> None:
    ports = {"api": Settings().port, "worker": int(SERVICES["worker"]["command"][-1])}
    scraped = {}
    for job in prometheus_config()["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        (name,) = found["names"]
        scraped[name] = found["port"]
        assert job["job_name"] == f"explaind-{name}"
        assert ("authorization" in job) == (name == "api")
        if "authorization" in job:
            path = Path(job["authorization"]["credentials_file"])
            assert path.parent == Path("/run/secrets")
            assert path.name in SERVICES["prometheus"]["secrets"]
    assert scraped == ports


def test_rules_and_dashboards_are_where_they_are_looked_for() -> None:
    for rules in prometheus_config()["rule_files"]:
        assert documents(mounted("prometheus", rules))[0]["groups"]
    (provided,) = documents(
        mounted("grafana", "/etc/grafana/provisioning/dashboards/explaind.yaml")
    )
    folder = mounted("grafana", provided["providers"][0]["options"]["path"])
    assert len(list(folder.glob("*.json"))) >= 3


EXPLAIND = f"{sys.executable} -m service"


def make_secrets(directory: Path, explaind: str = EXPLAIND) -> None:
    command = [DEPLOY / "make-secrets"]
    env = {**os.environ, "EXPLAIND": explaind, "DIRECTORY": str(directory)}
    subprocess.run(command, check=True, env=env, capture_output=True, timeout=60)


def test_the_secrets_it_names_are_made_once_and_open_what_they_should(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    files = {tmp_path / secret["file"] for secret in COMPOSE["secrets"].values()}
    found = {path: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    assert set(found) == files
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert {
        len(found[tmp_path / "secrets" / name]) for name in ("secret", "key-encryption-key")
    } == {32}
    variables = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert variables == set(values_of((tmp_path / ".env").read_text()))
    (key,) = KeyFile.read(tmp_path / "secrets" / "api-keys.json").keys
    assert key.scopes == ("metrics",)
    assert found[tmp_path / "secrets" / "metrics-key"].decode().startswith(f"exd_{key.prefix}")
    make_secrets(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == found


def test_a_key_that_could_not_be_made_is_made_the_next_time(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(tmp_path, "false")
    secrets = tmp_path / "secrets"
    assert not (secrets / "metrics-key").exists()
    for _ in range(2):  # the second time the name is there and its key is lost
        make_secrets(tmp_path)
        entry = KeyFile.read(secrets / "api-keys.json").keys[-1]
        assert (secrets / "metrics-key").read_text().startswith(f"exd_{entry.prefix}")
        (secrets / "metrics-key").unlink()
