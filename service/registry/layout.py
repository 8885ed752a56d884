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

from pydantic import ValidationError

from service.durability import replace_file, sync
from service.errors import InvalidInputError, UnavailableError, UnknownError
from service.registry.errors import DamagedVersionError
from service.registry.manifest import Manifest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
MANIFEST = "manifest.json"
SERVING = "serving"
HISTORY = "history"
DISABLED = "disabled"
TABLES = "tables.npy"
READABLE = 0o644
PRIVATE = frozenset({"background.json", "golden.json", TABLES})  # rows of real people, or sums


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
        return sorted(int(p.name) for p in folder.iterdir() if NUMBER.fullmatch(p.name))

    def folder(self, name: str, version: int) -> Path:
        """The version's directory; UnknownError if there is none."""
        folder = self.root / check_name(name) / str(version)
        if not folder.is_dir():
            raise UnknownError(f"there is no version {version} of model {name!r} in {self.root}")
        return folder

    def serving(self, name: str) -> int | None:
        """The serving version, or None for an unknown name."""
        numbers = self._numbers(name, SERVING)
        if numbers is None:
            return None
        if len(numbers) != 1:
            raise DamagedVersionError(f"{self.root / name / SERVING} does not hold a version")
        return numbers[0]

    def previous(self, name: str) -> int | None:
        """The version that served before the present one."""
        served = self._numbers(name, HISTORY) or []
        return served[-2] if len(served) > 1 else None

    def set_serving(self, name: str, version: int) -> None:
        """Point the name at a version, remembering the order in which versions served. The caller
        holds the lock.
        """
        self.folder(name, version)
        served = self._numbers(name, HISTORY) or []
        self._point(name, served if served[-1:] == [version] else [*served, version])

    def step_back(self, name: str, version: int) -> None:
        """Point the name at `previous` again, so that the next step goes further back. The caller
        holds the lock.
        """
        served = self._numbers(name, HISTORY) or []
        if served[-2:-1] != [version]:
            raise UnavailableError("another version was promoted meanwhile; roll back again")
        self._point(name, served[:-1])

    def is_disabled(self, name: str) -> bool:
        """Nobody may call the model for now."""
        return (self.root / check_name(name) / DISABLED).exists()

    def disable(self, name: str) -> None:
        """Have no service answer for the name until it is enabled; UnknownError for none."""
        self._check_registered(name)
        with self.lock(), _writing(self.root / name):
            replace_file(self.root / name / DISABLED, b"", mode=READABLE)

    def enable(self, name: str) -> None:
        """Have it served again."""
        self._check_registered(name)
        with self.lock(), _writing(self.root / name):
            (self.root / name / DISABLED).unlink(missing_ok=True)
            sync(self.root / name)

    def _check_registered(self, name: str) -> None:
        if not self.versions(check_name(name)):
            raise UnknownError(f"no model {name!r} is registered in {self.root}")

    def _point(self, name: str, served: list[int]) -> None:
        folder = self.root / name
        with _writing(folder):
            history = "\n".join(map(str, served))
            replace_file(folder / HISTORY, history.encode(), mode=READABLE)
            replace_file(folder / SERVING, f"{served[-1]}\n".encode(), mode=READABLE)

    def _numbers(self, name: str, file: str) -> list[int] | None:
        """The version numbers a small file holds; None when there is no such file."""
        if not NAME.fullmatch(name):
            return None
        path = self.root / name / file
        try:
            words = path.read_bytes().decode("ascii").split()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedVersionError(f"{path} cannot be read: {error}") from error
        if not all(map(NUMBER.fullmatch, words)):
            raise DamagedVersionError(f"{path} does not hold version numbers")
        return [int(word) for word in words]

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
        with self.lock(), _writing(parent):
            parent.mkdir(mode=0o700, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=".draft-", dir=parent))
        try:
            yield folder
        finally:
            with self.lock():
                shutil.rmtree(folder, ignore_errors=True)
                if not any(parent.iterdir()):
                    parent.rmdir()

    def publish(self, draft: Path, version: int) -> None:
        """Make a finished draft the given version; every file is on disk before it shows. A
        name's first version serves at once. The caller holds the lock.
        """
        name = draft.parent.name
        is_first = self.serving(name) is None
        with _writing(draft):
            for path in draft.iterdir():
                sync(path)
            sync(draft)
            draft.rename(draft.parent / str(version))
            sync(draft.parent)
        if is_first:
            self._point(name, [version])


def read_files(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """Manifest bytes and every file it lists, each compared with its digest before use.

    Raises DamagedVersionError.
    """
    try:
        manifest_bytes = (folder / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(manifest_bytes)
        contents = {name: _contained(folder, name).read_bytes() for name in manifest.files}
    except ValidationError as error:
        raise DamagedVersionError(f"{folder / MANIFEST} is not a version's manifest") from error
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
    with _writing(folder):
        for name, data in contents.items():
            path = _contained(folder, name)
            path.touch(mode=0o600 if name in PRIVATE else READABLE)
            path.write_bytes(data)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"cannot write {path}: {error.strerror}") from error


def _contained(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in (".", ".."):
        raise ValueError(f"file name {name!r} leaves the version's folder")
    return folder / name
