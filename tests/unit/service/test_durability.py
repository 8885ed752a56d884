"""What must outlive a power cut has been synced, and so have the names it is found by."""

from pathlib import Path

import pytest
from syncs import Syncs

from service.auth import KeyFile
from service.durability import make_directory, replace_file
from service.evidence import EvidenceStore
from service.keystore import Kek, KeyStore
from service.ledger.checkpoints import CheckpointFile
from service.secret_files import read_or_create


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs.watched(monkeypatch)


def test_the_one_key_that_all_payloads_need_is_durable_before_it_is_used(
    tmp_path: Path, syncs: Syncs
) -> None:
    folder = tmp_path / "new"
    content = read_or_create(folder / "key", 32)
    drafts = [path for path, size in syncs.seen if size == len(content) and path.parent == folder]
    assert drafts
    assert syncs.knows(tmp_path)
    assert syncs.knows(folder, since=syncs.seen.index((drafts[0], 32)))
    read_or_create(folder / "key", 32)
    assert [path.name for path in folder.iterdir()] == ["key"]


def test_all_directories_that_are_made_are_private_and_synced(tmp_path: Path, syncs: Syncs) -> None:
    make_directory(tmp_path / "new" / "inner")
    for made in (tmp_path / "new", tmp_path / "new" / "inner"):
        assert made.stat().st_mode & 0o777 == 0o700
        assert syncs.knows(made.parent)


def test_a_key_that_is_found_is_durable_before_it_is_used(tmp_path: Path, syncs: Syncs) -> None:
    (tmp_path / "key").write_bytes(bytes(32))
    assert read_or_create(tmp_path / "key", 32) == bytes(32)
    assert syncs.knows(tmp_path)


def write_keys(path: Path) -> None:
    KeyFile().with_key("ann", ("predict",))[0].write(path)


def write_checkpoint(path: Path) -> None:
    CheckpointFile(path.parent, path.suffix[1:]).write("a note")


@pytest.mark.parametrize("write", [write_keys, write_checkpoint])
def test_a_small_file_is_synced_and_then_its_new_name(
    write: object, tmp_path: Path, syncs: Syncs
) -> None:
    path = tmp_path / "checkpoint.evidence"
    assert callable(write)
    write(path)
    write(path)
    kinds = ["directory" if place == tmp_path else "file" for place, _ in syncs.seen]
    assert kinds == ["file", "directory"] * 2
    assert syncs.seen[-2][1] == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_replaced_stays_and_no_draft_with_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "there", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_databases_that_are_made_are_found_again(tmp_path: Path, syncs: Syncs) -> None:
    folder = tmp_path / "new"
    EvidenceStore.open(f"sqlite:///{folder}/evidence.db").close()
    assert syncs.knows(tmp_path)
    assert syncs.knows(folder)
    before = len(syncs.seen)
    KeyStore.open(f"sqlite:///{folder}/keys.db", Kek.random()).close()
    assert syncs.knows(folder, since=before)
