"""Files and folders of the registry: atomic writes, immutable versions, the serving pointer."""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from service.errors import InvalidInputError, UnavailableError, UnknownError
from service.registry.errors import DamagedVersionError
from service.registry.manifest import Manifest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MANIFEST = "manifest.json"
PRIVATE = frozenset({"background.json", "golden.json"})  # rows of real people


def sha256_of(data: bytes) -> str:
    """The digest as it is written everywhere: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check_name(name: str) -> str:
    """The name, if it can be a folder and a metric label; InvalidInputError otherwise."""
    if not NAME.fullmatch(name):
        raise InvalidInputError(
            f"model name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name


class Layout:
    """Paths below one registry directory. Readers need no lock: every change is one rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Registered names, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if NAME.fullmatch(p.name) and p.is_dir())

    def versions(self, name: str) -> list[int]:
        """Versions of a name, ascending; empty for an unknown name."""
        folder = self.root / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            return []
        return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())

    def folder(self, name: str, version: int) -> Path:
        """The version's directory; UnknownError if there is none."""
        folder = self.root / check_name(name) / str(version)
        if not folder.is_dir():
            raise UnknownError(f"there is no version {version} of model {name!r} in {self.root}")
        return folder

    def serving(self, name: str) -> int | None:
        """The serving version, or None for an unknown name."""
        try:
            text = (self.root / name / "serving").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not text.isdecimal():
            raise DamagedVersionError(f"{self.root / name / 'serving'} does not hold a version")
        return int(text)

    def previous(self, name: str) -> int | None:
        """The version that served before the present one."""
        try:
            lines = (self.root / name / "history").read_text().split()
        except FileNotFoundError:
            return None
        return int(lines[-2]) if len(lines) > 1 else None

    def set_serving(self, name: str, version: int) -> None:
        """Point the name at a version, remembering the order in which versions served."""
        self.folder(name, version)
        with self.lock():
            history = self.root / name / "history"
            lines = history.read_text().split() if history.exists() else []
            if lines[-1:] != [str(version)]:
                # A rollback steps back in the history, so that the next one goes further back.
                lines = lines[:-1] if lines[-2:-1] == [str(version)] else [*lines, str(version)]
            write_atomically(history, "\n".join(lines).encode())
            write_atomically(self.root / name / "serving", f"{version}\n".encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One writer at a time, across processes."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UnavailableError(f"registry {self.root}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """A hidden folder beside the versions, removed unless `publish` has renamed it."""
        parent = self.root / check_name(name)
        with self.lock():
            parent.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".draft-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not any(parent.iterdir()):
                parent.rmdir()

    def publish(self, draft: Path, version: int) -> Path:
        """Make a finished draft the given version; every file is on disk before it shows."""
        for path in draft.iterdir():
            _fsync(path)
        _fsync(draft)
        target = draft.parent / str(version)
        if target.exists():
            raise UnavailableError(f"version {version} appeared meanwhile; register again")
        draft.rename(target)
        _fsync(draft.parent)
        return target


def read_files(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """Manifest bytes and every file it lists, each compared with its digest before use."""
    try:
        manifest_bytes = (folder / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(manifest_bytes)
        contents = {name: _contained(folder, name).read_bytes() for name in manifest.files}
    except (OSError, ValueError) as error:
        raise DamagedVersionError(f"{folder}: {error}") from error
    for name, entry in manifest.files.items():
        if sha256_of(contents[name]) != entry.sha256:
            raise DamagedVersionError(
                f"{folder / name} is not the file that was registered (its digest differs)"
            )
    return manifest_bytes, contents


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of a draft; those with rows of real people are for the owner only."""
    for name, data in contents.items():
        path = _contained(folder, name)
        path.touch(mode=0o600 if name in PRIVATE else 0o644)
        path.write_bytes(data)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file so that a reader sees the old bytes or the new, never a mixture."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    _fsync(draft)
    draft.replace(path)
    _fsync(path.parent)


def _contained(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in (".", ".."):
        raise ValueError(f"file name {name!r} leaves the version's folder")
    return folder / name


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
