"""What people write of a model: kept beside the versions, and stale once it no longer fits."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from service.errors import InvalidInputError, UnavailableError
from service.registry import Registry
from service.registry.layout import sha256_of
from service.registry.sections import (
    SECTIONS,
    CardState,
    card_state,
    confirm_sections,
    write_section,
)

REQUIRED = ("intended_use", "owner")


def statuses(registry: Registry, version: int) -> dict[str, str]:
    return {each.name: each.status for each in state_of(registry, version).sections}


def state_of(registry: Registry, version: int) -> CardState:
    return card_state(registry.layout, registry.load("small", version))


def write(registry: Registry, version: int, *sections: str, text: str = "As it should be.") -> None:
    for section in sections:
        write_section(registry.layout, registry.load("small", version), section, text)


@pytest.fixture
def narrower(registry: Registry, small: tuple[Any, pd.DataFrame, pd.Series]) -> Registry:
    """The same, and a version 4 with a column less."""
    from xgboost import XGBClassifier

    _, X, y = small
    X = X.iloc[:, :3]
    model = XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(X, y)
    assert registry.register("small", model, X, y).model.version == 4
    return registry


def test_a_card_nobody_wrote_is_not_begun_and_lacks_what_is_required(registry: Registry) -> None:
    state = state_of(registry, 1)
    assert not state.is_begun
    assert state.troubles == ["intended_use is empty", "owner is empty"]


def test_what_is_written_for_one_version_holds_for_the_next_of_its_kind(
    registry: Registry,
) -> None:
    write(registry, 1, *REQUIRED)
    for version in (1, 2, 3):
        state = state_of(registry, version)
        assert (state.is_begun, state.troubles) == (True, [])
        assert state.sections[0].written_for == 1
    assert statuses(registry, 2) == dict.fromkeys(SECTIONS, "empty") | dict.fromkeys(
        REQUIRED, "current"
    )


def test_it_survives_a_new_version_and_leaves_every_version_as_it_was(
    registry: Registry,
    small: tuple[Any, pd.DataFrame, pd.Series],
) -> None:
    folder = Path(registry.path) / "small"
    before = {path: sha256_of(path.read_bytes()) for path in folder.glob("[123]/*")}
    write(registry, 1, *REQUIRED)
    registry.register("small", *small)
    assert registry.layout.versions("small") == [1, 2, 3, 4]
    assert state_of(registry, 4).troubles == []
    assert {path: sha256_of(path.read_bytes()) for path in folder.glob("[123]/*")} == before


def test_another_schema_makes_it_stale_and_says_so(narrower: Registry) -> None:
    write(narrower, 1, *REQUIRED)
    assert state_of(narrower, 3).troubles == []
    assert state_of(narrower, 4).troubles == [
        f"{name} was written for version 1; since then changed: input schema" for name in REQUIRED
    ]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("task", "regression", "task"),
        ("classes", ["benign", "malignant"], "classes"),
        ("method", "permutation", "explanation method"),
        ("output_space", "probability", "output space"),
        ("schema_digest", "sha256:0", "input schema"),
    ],
)
def test_whatever_else_it_rests_on_makes_it_stale_too(
    registry: Registry, field: str, value: object, named: str
) -> None:
    import json

    write(registry, 1, "owner")
    path = Path(registry.path) / "small" / "card" / "owner.md"
    mark, _, text = path.read_text().partition("\n")
    said = json.loads(mark.removeprefix("<!-- explaind-card ").removesuffix(" -->"))
    said[0][field] = value
    path.write_text(f"<!-- explaind-card {json.dumps(said)} -->\n{text}")
    (trouble,) = (each for each in state_of(registry, 1).troubles if each.startswith("owner"))
    assert trouble == f"owner was written for version 1; since then changed: {named}"


def test_confirmed_for_a_candidate_it_still_holds_for_the_version_that_serves(
    narrower: Registry,
) -> None:
    write(narrower, 1, *REQUIRED)
    confirmed = confirm_sections(narrower.layout, narrower.load("small", 4))
    assert confirmed == list(REQUIRED)
    assert state_of(narrower, 4).troubles == state_of(narrower, 1).troubles == []
    write(narrower, 4, "owner", text="Somebody else.")
    assert [each.split()[0] for each in state_of(narrower, 1).troubles] == ["owner"]


def test_a_file_written_by_hand_is_stale_until_it_is_confirmed(registry: Registry) -> None:
    folder = Path(registry.path) / "small" / "card"
    folder.mkdir()
    (folder / "owner.md").write_text("The credit team.\n")
    (owner,) = (each for each in state_of(registry, 1).sections if each.name == "owner")
    assert (owner.status, owner.text) == ("stale", "The credit team.")
    assert owner.reason == "was not confirmed for any version"
    confirm_sections(registry.layout, registry.load("small", 1))
    assert statuses(registry, 1)["owner"] == "current"


@pytest.mark.parametrize("mark", ["[{}]", "{", "7", '[{"version": "x"}]', "null"])
def test_a_mark_that_cannot_be_read_confirms_nothing_and_is_not_shown(
    registry: Registry, mark: str
) -> None:
    write(registry, 1, "owner", text="Us.")
    path = Path(registry.path) / "small" / "card" / "owner.md"
    path.write_text(f"<!-- explaind-card {mark} -->\n\nUs.\n")
    (owner,) = (each for each in state_of(registry, 1).sections if each.name == "owner")
    assert (owner.status, owner.text) == ("stale", "Us.")


def test_an_empty_text_removes_a_section(registry: Registry) -> None:
    write(registry, 1, "ethics")
    write(registry, 1, "ethics", text=" \n")
    assert not state_of(registry, 1).is_begun


def test_unknown_sections_large_ones_and_other_files_are_refused(registry: Registry) -> None:
    with pytest.raises(InvalidInputError, match="there is no section 'intent'"):
        write(registry, 1, "intent")
    with pytest.raises(InvalidInputError, match="at most 65536 bytes"):
        write(registry, 1, "owner", text="x" * 65537)
    folder = Path(registry.path) / "small" / "card"
    folder.mkdir()
    (folder / "owner.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="is not UTF-8"):
        state_of(registry, 1)
    (folder / "ethics.md").mkdir()
    (folder / "owner.md").unlink()
    with pytest.raises(UnavailableError):
        state_of(registry, 1)
