"""Models are served under the policy in force; one that does not fit is told and not applied."""

import os
from pathlib import Path

import orjson
import pytest
from policies import KEY

from service.errors import InvalidInputError
from service.metrics import Metrics
from service.policies import Policies
from service.registry import Registry
from service.secrets import Keyring
from service.serving import ServedModels

GOOD = "[models.breast_cancer]\nrules = [{ when = 'column(\"mean radius\") > 10', rate = 0.5 }]"
MISFIT = "[models.breast_cancer]\nrules = [{ when = 'mean_radius > 10', rate = 0.5 }]"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    return path


def served(data_dir: Path, path: Path) -> ServedModels:
    models = ServedModels(
        Registry(data_dir / "registry"),
        Metrics(),
        default=None,
        retention_days=1,
        policies=Policies(path, Keyring(KEY)),
    )
    models.refresh()
    return models


def change(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(path.stat().st_mtime_ns + 1, path.stat().st_mtime_ns + 1))


def header_version(models: ServedModels) -> object:
    constant = models.resolve(None).header.constant
    return orjson.loads(b"{" + constant)["policy_version"]


def test_records_name_the_version_of_the_policy_in_force(data_dir: Path, path: Path) -> None:
    models = served(data_dir, path)
    policy = models.resolve(None).policy
    assert policy is not None
    assert [rule.probability for rule in policy.rules] == [0.5]
    assert header_version(models) == policy.version
    change(path, GOOD.replace("0.5", "0.25"))
    models.refresh()
    assert header_version(models) not in {None, policy.version}
    twin = models.bound_to(Metrics())
    assert twin.resolve(None).policy is models.resolve(None).policy


def test_a_policy_that_misfits_a_served_model_leaves_it_the_old_one(
    data_dir: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = served(data_dir, path)
    before = models.resolve(None)
    change(path, MISFIT)
    models.refresh()
    models.refresh()
    assert models.resolve(None) is before
    out = capsys.readouterr().out
    assert out.count("policy_misfit") == 1
    assert "there is no column 'mean_radius'; did you mean 'mean radius'?" in out
    change(path, GOOD)
    models.refresh()
    assert models.resolve(None).policy is not None


def test_a_version_is_not_served_under_a_policy_that_misfits_it(data_dir: Path, path: Path) -> None:
    change(path, MISFIT)
    models = served(data_dir, path)
    assert list(models.refused) == ["breast_cancer"]
    assert not models.all
    change(path, GOOD)
    models.refresh()
    assert list(models.all) == ["breast_cancer"]


def test_without_a_policy_nothing_is_decided(data_dir: Path) -> None:
    models = ServedModels(
        Registry(data_dir / "registry"), Metrics(), default=None, retention_days=1
    )
    models.refresh()
    assert models.resolve(None).policy is None
    assert header_version(models) is None


def test_rules_for_the_next_version_may_come_before_it(data_dir: Path, path: Path) -> None:
    models = served(data_dir, path)
    change(path, MISFIT)
    models.refresh()
    assert models.resolve(None).policy is not None
    # What is in force for whatever is loaded from now on.
    with pytest.raises(InvalidInputError, match="did you mean"):
        models._policies.of(models.resolve(None).model)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "name", "days"),
    [
        ("", "default", 1),
        ('retention = "eu_ai_act"', "eu_ai_act", 183),
        ('retention = "us_reg_b"', "us_reg_b", 762),
        ('retention = "hipaa"', "hipaa", 2192),
        ("retention = 30", "30_days", 30),
    ],
)
def test_records_are_kept_as_long_as_the_policy_says(
    data_dir: Path, path: Path, said: str, name: str, days: int
) -> None:
    path.write_text(f"[models.breast_cancer]\n{said}\n[default]\nretention = 7\n" if said else GOOD)
    header = served(data_dir, path).resolve(None).header
    assert header.retention.days == days
    assert orjson.loads(b"{" + header.constant)["retention_class"] == name


def test_the_default_section_says_how_long_for_all_others(data_dir: Path, path: Path) -> None:
    path.write_text("[default]\nretention = 7\n[models.breast_cancer]\nreview = 5")
    assert served(data_dir, path).resolve(None).header.retention.days == 7
