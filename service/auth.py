"""Who calls and what they may do: API keys, scopes, tenants."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import (
    ForbiddenError,
    InvalidInputError,
    UnauthenticatedError,
    UnavailableError,
    UnknownError,
)

Scope = Literal["predict", "explain", "audit", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"exd_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a request, as it is written into records."""

    principal: str
    tenant: str
    scopes: frozenset[Scope]
    auth_method: Literal["none", "api_key"]

    def require(self, scope: Scope) -> None:
        """ForbiddenError unless the caller has the scope."""
        if scope not in self.scopes:
            raise ForbiddenError(f"this call needs the scope {scope!r}")

    def may_read(self, actor: str) -> bool:
        """Records of his tenant made by that principal: they are his own, or he audits."""
        return "audit" in self.scopes or actor == self.principal


LOCAL = Caller("local", DEFAULT_TENANT, frozenset(SCOPES) - {"admin"}, "none")


class KeyEntry(BaseModel):
    """One key as the file stores it: never the key itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    prefix: str
    sha256: str
    created_at: datetime
    revoked_at: datetime | None = None


class KeyFile(BaseModel):
    """The API-keys file, mode 0600."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[KeyEntry, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "KeyFile":
        """UnavailableError when it cannot be read, InvalidInputError when it is not ours."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UnavailableError(f"API-keys file {path}: {error.strerror}") from error
        except ValidationError as error:
            raise InvalidInputError(f"API-keys file {path}: {error.error_count()} errors") from None

    def write(self, path: Path) -> None:
        """Replace the file at once, readable by its owner only."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def with_key(self, name: str, scopes: Sequence[Scope], tenant: str) -> tuple["KeyFile", str]:
        """A file with one key more, and that key: it is shown once and stored hashed."""
        if not NAME.fullmatch(name) or not NAME.fullmatch(tenant):
            raise InvalidInputError("names and tenants: 1 to 64 letters, digits, '.', '_' or '-'")
        if any(entry.name == name and entry.revoked_at is None for entry in self.keys):
            raise InvalidInputError(f"there is a key named {name!r} already; revoke it first")
        prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = f"exd_{prefix}_{secret}"
        entry = KeyEntry(
            name=name,
            tenant=tenant,
            scopes=tuple(dict.fromkeys(scopes)),
            prefix=prefix,
            sha256=_hash(key),
            created_at=datetime.now(UTC),
        )
        return KeyFile(keys=(*self.keys, entry)), key

    def without(self, name: str) -> "KeyFile":
        """The same file with that name's key revoked; UnknownError if it has none in force."""
        if not any(entry.name == name and entry.revoked_at is None for entry in self.keys):
            raise UnknownError(f"there is no key named {name!r} in force")
        now = datetime.now(UTC)
        return KeyFile(
            keys=tuple(
                entry.model_copy(update={"revoked_at": entry.revoked_at or now})
                if entry.name == name
                else entry
                for entry in self.keys
            )
        )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(slots=True)
class Authenticator:
    """Finds the caller of a request. Without a keys file everybody on this machine is `local`."""

    path: Path | None
    _callers: dict[str, tuple[str, Caller]] = field(default_factory=dict)
    _stamp: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.refresh()

    @property
    def needs_keys(self) -> bool:
        """A keys file is configured."""
        return self.path is not None

    def refresh(self) -> None:
        """Read the file again if it changed; a revoked key stops working here."""
        if self.path is None:
            return
        try:
            status = self.path.stat()
        except OSError as error:
            raise UnavailableError(f"API-keys file {self.path}: {error.strerror}") from error
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        self._callers = {
            entry.prefix: (
                entry.sha256,
                Caller(entry.name, entry.tenant, frozenset(entry.scopes), "api_key"),
            )
            for entry in KeyFile.read(self.path).keys
            if entry.revoked_at is None
        }
        self._stamp = stamp

    def caller(self, authorization: str | None) -> Caller:
        """The principal of an Authorization header; UnauthenticatedError without a valid key."""
        if self.path is None:
            return LOCAL
        scheme, _, key = (authorization or "").partition(" ")
        match = KEY.fullmatch(key.strip())
        if scheme.lower() != "bearer" or match is None:
            raise UnauthenticatedError("send `Authorization: Bearer <key>`")
        stored, caller = self._callers.get(match[1], ("", None))
        if not hmac.compare_digest(stored, _hash(key.strip())) or caller is None:
            raise UnauthenticatedError("the API key is unknown or revoked")
        return caller
