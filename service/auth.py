"""Who calls and what they may do: API keys, scopes, tenants, roles."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from time import time
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.durability import make_directory, replace_file
from service.errors import (
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    UnknownError,
)

Scope = Literal["predict", "explain", "recourse", "audit", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"exd_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
DEFAULT_TENANT = "default"
NO_KEY = ("0" * 64, None, inf)


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a request, as it is written into records.

    tenant: whose records this request reads and writes; tenants: all the key reaches. roles: what
    POLICY_FILE masks columns for. The quotas are instances a minute, 0 for no limit, None for the
    settings' default.
    """

    principal: str
    tenant: str
    scopes: frozenset[Scope]
    auth_method: Literal["none", "api_key"]
    tenants: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    explain_per_minute: int | None = None
    predict_per_minute: int | None = None
    recourse_per_minute: int | None = None

    def require(self, scope: Scope) -> None:
        """ForbiddenError unless the caller has the scope."""
        if scope not in self.scopes:
            raise ForbiddenError(f"this call needs the scope {scope!r}")

    def may_read(self, actor: str, parent_request_id: str | None) -> bool:
        """Records of his tenant made by that principal: they are his own, or he audits.

        One that explains another request is his own with the scope explain only: policy may have
        had it made of a prediction that came without.
        """
        if "audit" in self.scopes:
            return True
        is_own = actor == self.principal
        return is_own and (parent_request_id is None or "explain" in self.scopes)

    def at(self, tenant: str) -> Self:
        """The same caller looking into another of his tenants.

        NotFoundError for one that is not his, in the same words whether or not there is such a one.
        """
        if tenant == self.tenant:
            return self
        if tenant not in self.tenants:
            raise NotFoundError("no tenant of this name can be read by this caller")
        return replace(self, tenant=tenant)


LOCAL = Caller("local", DEFAULT_TENANT, frozenset(SCOPES) - {"admin"}, "none")


Quota = Annotated[int, Field(ge=0, le=10**9)]


class KeyEntry(BaseModel):
    """One key as the file stores it: never the key itself.

    The first of the tenants is the one it writes to. valid_until: set when another key took its
    place. Several entries of one name are one principal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    tenants: Annotated[tuple[str, ...], Field(min_length=1)]
    scopes: tuple[Scope, ...]
    roles: tuple[str, ...] = ()
    explain_per_minute: Quota | None = None
    predict_per_minute: Quota | None = None
    recourse_per_minute: Quota | None = None
    prefix: str
    sha256: str
    created_at: datetime
    valid_until: datetime | None = None
    revoked_at: datetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_tenant(cls, node: object) -> object:
        """Files of the first release name one tenant."""
        if isinstance(node, dict) and "tenant" in node and "tenants" not in node:
            node = {name: value for name, value in node.items() if name != "tenant"} | {
                "tenants": [node["tenant"]]
            }
        return node

    def is_in_force(self, now: datetime) -> bool:
        """It opens something at that time."""
        return self.revoked_at is None and (self.valid_until is None or now < self.valid_until)

    def caller(self) -> Caller:
        """Who calls with it."""
        return Caller(
            self.name,
            self.tenants[0],
            frozenset(self.scopes),
            "api_key",
            tenants=self.tenants,
            roles=self.roles,
            explain_per_minute=self.explain_per_minute,
            predict_per_minute=self.predict_per_minute,
            recourse_per_minute=self.recourse_per_minute,
        )


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
        """Replace the file at once and durably, readable by its owner only. Raises OSError."""
        make_directory(path.parent)
        replace_file(path, self.model_dump_json(indent=1).encode())

    def with_key(
        self,
        name: str,
        scopes: Sequence[Scope],
        *tenants: str,
        roles: Sequence[str] = (),
        explain_per_minute: int | None = None,
        predict_per_minute: int | None = None,
        recourse_per_minute: int | None = None,
    ) -> tuple["KeyFile", str]:
        """A file with one key more, and that key: it is shown once and stored hashed."""
        tenants = tenants or (DEFAULT_TENANT,)
        if not all(map(NAME.fullmatch, (name, *tenants, *roles))):
            raise InvalidInputError(
                "names, tenants and roles: 1 to 64 letters, digits, '.', '_' or '-'"
            )
        if self._in_force(name):
            raise InvalidInputError(f"there is a key named {name!r} already; revoke or rotate it")
        prefix, key = _new_key()
        entry = KeyEntry(
            name=name,
            tenants=tuple(dict.fromkeys(tenants)),
            scopes=tuple(dict.fromkeys(scopes)),
            roles=tuple(dict.fromkeys(roles)),
            explain_per_minute=explain_per_minute,
            predict_per_minute=predict_per_minute,
            recourse_per_minute=recourse_per_minute,
            prefix=prefix,
            sha256=_hash(key),
            created_at=datetime.now(UTC),
        )
        return KeyFile(keys=(*self.keys, entry)), key

    def without(self, name: str) -> "KeyFile":
        """The same file with all keys of that name revoked; UnknownError if none is in force."""
        if not self._in_force(name):
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

    def rotated(self, name: str, overlap: timedelta) -> tuple["KeyFile", str]:
        """The file with a new key for what the name's may do, and that key; the older ones end
        after the overlap, or when they would have ended. UnknownError if none is in force.
        """
        now = datetime.now(UTC)
        old = self._in_force(name)
        if not old:
            raise UnknownError(f"there is no key named {name!r} in force")
        prefix, key = _new_key()
        facts = {"prefix": prefix, "sha256": _hash(key), "created_at": now, "valid_until": None}
        latest = old[-1].model_copy(update=facts)
        ended = {
            entry.prefix: entry.model_copy(
                update={"valid_until": min(entry.valid_until or now + overlap, now + overlap)}
            )
            for entry in old
        }
        return KeyFile(keys=(*(ended.get(e.prefix, e) for e in self.keys), latest)), key

    def _in_force(self, name: str) -> list[KeyEntry]:
        now = datetime.now(UTC)
        return [entry for entry in self.keys if entry.name == name and entry.is_in_force(now)]


def _new_key() -> tuple[str, str]:
    """A prefix to find it by, and the whole key: 256 random bits."""
    prefix = secrets.token_hex(6)
    return prefix, f"exd_{prefix}_{secrets.token_urlsafe(32)}"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(slots=True)
class Authenticator:
    """Finds the caller of a request. Without a keys file everybody on this machine is `local`."""

    path: Path | None
    _callers: dict[str, tuple[str, Caller, float]] = field(default_factory=dict)
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
                entry.caller(),
                inf if entry.valid_until is None else entry.valid_until.timestamp(),
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
        stored, caller, ends_at = self._callers.get(match[1], NO_KEY)
        is_right = hmac.compare_digest(stored, _hash(match[0]))
        if not is_right or caller is None or time() >= ends_at:
            raise UnauthenticatedError("the API key is unknown or revoked")
        return caller
