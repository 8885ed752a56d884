"""The policy of a running service follows its file, and outlives a broken one."""

import os
from pathlib import Path

import pytest

from service.errors import InvalidInputError, UnavailableError
from service.policy import PolicyFollower


def write(path: Path, text: str) -> None:
    """As editors do: a new file in the old one's place."""
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text("[default]\nreview = 1")
    return path


def test_a_changed_file_is_given_once(path: Path) -> None:
    follower = PolicyFollower(path)
    opened = follower.open()
    assert follower.changed() is None
    write(path, "[default]\nreview = 2")
    changed = follower.changed()
    assert changed is not None
    assert changed.version != opened.version
    assert follower.changed() is None


def test_a_file_written_in_place_is_noticed(path: Path) -> None:
    follower = PolicyFollower(path)
    follower.open()
    path.write_text("[default]\nreview = 2")
    os.utime(path, ns=(1, 1))
    assert follower.changed() is not None


@pytest.mark.parametrize("broken", ["not = [toml", "[default]\nreview = -1", None])
def test_a_broken_file_is_told_once_and_a_mended_one_counts(
    path: Path, broken: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    follower = PolicyFollower(path)
    follower.open()
    if broken is None:
        path.unlink()
    else:
        write(path, broken)
    assert follower.changed() is None
    assert follower.changed() is None
    assert capsys.readouterr().out.count("policy_refused") == 1
    write(path, "[default]\nreview = 3")
    assert follower.changed() is not None


@pytest.mark.parametrize(("broken", "error"), [("?", InvalidInputError), (None, UnavailableError)])
def test_a_start_with_a_broken_file_fails(
    path: Path, broken: str | None, error: type[Exception]
) -> None:
    if broken is None:
        path.unlink()
    else:
        write(path, broken)
    with pytest.raises(error):
        PolicyFollower(path).open()
