"""The policy of a running service follows its file, and outlives a broken one."""

import os
from pathlib import Path

import pytest
from policies import CLASSIFIER, KEY

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


def following(path: Path) -> PolicyFollower:
    return PolicyFollower(path, key_of=lambda _tenant: KEY)


def size(follower: PolicyFollower) -> int:
    return follower.bind("loans", CLASSIFIER).review_size


def test_a_changed_file_is_noticed_once(path: Path) -> None:
    follower = following(path)
    assert not follower.refresh()
    write(path, "[default]\nreview = 2")
    assert follower.refresh()
    assert size(follower) == 2
    assert not follower.refresh()


def test_a_file_that_says_the_same_in_other_words_is_no_news(path: Path) -> None:
    follower = following(path)
    write(path, "# one\n[default]\nreview   = 1")
    assert not follower.refresh()


def test_a_file_written_in_place_is_noticed(path: Path) -> None:
    follower = following(path)
    path.write_text("[default]\nreview = 2")
    os.utime(path, ns=(1, 1))
    assert follower.refresh()


@pytest.mark.parametrize("broken", ["not = [toml", "[default]\nreview = -1", None])
def test_a_broken_file_is_told_once_and_a_mended_one_counts(
    path: Path, broken: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    follower = following(path)
    if broken is None:
        path.unlink()
    else:
        write(path, broken)
    assert not follower.refresh()
    assert not follower.refresh()
    assert size(follower) == 1
    assert capsys.readouterr().out.count("policy_refused") == 1
    write(path, "[default]\nreview = 3")
    assert follower.refresh()
    assert size(follower) == 3


@pytest.mark.parametrize(("broken", "error"), [("?", InvalidInputError), (None, UnavailableError)])
def test_a_start_with_a_broken_file_fails(
    path: Path, broken: str | None, error: type[Exception]
) -> None:
    if broken is None:
        path.unlink()
    else:
        write(path, broken)
    with pytest.raises(error):
        following(path)
