"""A stale card fails the gate; one that nobody began does where it is asked to."""

import json
import shutil
from pathlib import Path

import pytest
from commands import explaind
from gated_versions import loans

from service.errors import UsageError
from service.gate import Bounds, Depth, Gate, named_version, rows_of_file
from service.gate.card import card_finding
from service.gate.findings import Finding
from service.registry import Registry
from service.registry.described import describe_version
from service.registry.sections import confirm_sections, write_section
from service.registry.work import Options


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of a kind, and 3 with a column less; the rows in a CSV file."""
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("carded")
    X, y = loans(200)
    X = X.drop(columns="region")
    X.assign(outcome=y).to_csv(folder / "rows.csv", index=False)
    registry = Registry(folder / "registry")
    for columns in (list(X), list(X), [name for name in X if name != "visits"]):
        model = LogisticRegression().fit(X[columns], y)
        registry.register("loans", model, X[columns], y, options=Options(background_rows=20))
    return folder


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Registry:
    shutil.copytree(made / "registry", tmp_path / "registry")
    return Registry(tmp_path / "registry")


def found(registry: Registry, version: int, *, is_required: bool = False) -> Finding:
    known = describe_version(registry.layout, "loans", version)
    return card_finding(registry.layout, known, is_required=is_required)


def written(registry: Registry, *sections: str) -> None:
    known = describe_version(registry.layout, "loans", 1)
    for section in sections:
        write_section(registry.layout, known, section, "For clerks.")


def test_a_card_nobody_began_is_noted_and_blocks_where_one_is_required(registry: Registry) -> None:
    assert found(registry, 2).verdict == "note"
    assert "explaind card NAME --set" in found(registry, 2).detail
    assert found(registry, 2, is_required=True).verdict == "block"


@pytest.mark.parametrize("is_required", [False, True])
def test_a_written_card_passes_for_a_version_of_the_same_kind(
    registry: Registry, *, is_required: bool
) -> None:
    written(registry, "intended_use", "owner")
    finding = found(registry, 2, is_required=is_required)
    assert (finding.verdict, finding.detail) == ("pass", "written for version 1")


def test_a_begun_card_without_its_owner_blocks(registry: Registry) -> None:
    written(registry, "intended_use", "ethics")
    assert (found(registry, 2).verdict, found(registry, 2).detail) == ("block", "owner is empty")


def test_a_card_of_another_schema_is_stale_and_blocks_until_it_is_confirmed(
    registry: Registry,
) -> None:
    written(registry, "intended_use", "owner")
    finding = found(registry, 3)
    assert finding.verdict == "block"
    assert "owner was written for version 1; since then changed: input schema" in finding.detail
    confirm_sections(registry.layout, describe_version(registry.layout, "loans", 3))
    finding = found(registry, 3)
    assert (finding.verdict, finding.detail) == ("pass", "written for version 3")


def test_a_comparison_looks_at_the_card_where_it_is_told_where_cards_are(
    registry: Registry, made: Path
) -> None:
    old, new = (named_version(registry, f"loans:{version}") for version in (1, 2))
    rows = rows_of_file(made / "rows.csv", most=120, seed=0, labels=None)
    written(registry, "owner")
    for layout, blocks in ((None, []), (registry.layout, ["card"])):
        gate = Gate(bounds=Bounds(), depth=Depth(explained_rows=60), layout=layout)
        assert [each.check for each in gate.compare(old, new, rows).blocks] == blocks


def test_the_command_blocks_without_a_card_where_one_is_required(
    registry: Registry, made: Path
) -> None:
    done = explaind(
        *("gate", "loans:1", "loans:2", "--rows", str(made / "rows.csv"), "--last", "120"),
        *("--explained", "60", "--require-card", "--json", "--registry", str(registry.path)),
    )
    assert done.returncode == 1
    assert "loans:2 is blocked: card" in done.stderr
    (card,) = (each for each in json.loads(done.stdout)["checks"] if each["check"] == "card")
    assert card["verdict"] == "block"


def test_a_card_is_required_by_true_or_false() -> None:
    with pytest.raises(UsageError, match="require_card takes true or false"):
        Bounds().changed({"require_card": 1}, source="test")
