import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import UnavailableError
from service.secrets import Keyring


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    first, second = Keyring.open(path), Keyring.open(path)
    assert first.digest("t", "p", b"m") == second.digest("t", "p", b"m")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["secret"]


def test_starting_together_gives_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        rings = list(pool.map(lambda _: Keyring.open(tmp_path / "secret"), range(64)))
    assert len({ring.digest("t", "p", b"m") for ring in rings}) == 1


def test_keys_differ_by_tenant_purpose_and_secret() -> None:
    ring = Keyring(bytes(32))
    digests = {
        ring.digest("a", "fingerprint", b"m"),
        ring.digest("b", "fingerprint", b"m"),
        ring.digest("a", "subject", b"m"),
        Keyring(bytes(31) + b"\1").digest("a", "fingerprint", b"m"),
    }
    assert len(digests) == 4


def test_a_subject_is_found_by_what_it_was_filed_under_years_ago() -> None:
    ring = Keyring(bytes(32))
    anna = "703fd290491a12ad8fceb114de7ca47f6e41b3518f20c19727186ed55662fb95"
    assert ring.keyed_subject("default", "anna") == anna
    assert ring.keyed_subjects("default", ["anna", None]) == f'["{anna}",null]'
    assert ring.keyed_subjects("default", None) is None


def test_tenant_and_purpose_cannot_be_shifted_into_each_other() -> None:
    ring = Keyring(bytes(32))
    assert ring.key("a/b", "p") != ring.key("b", "p/a")


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_secret_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="32 bytes"):
        Keyring.open(path)


def test_an_unreadable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="secret file"):
        Keyring.open(tmp_path / "file" / "secret")
