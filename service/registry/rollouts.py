"""A version that is tried beside the serving one: a small file beside the pointer to that."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.durability import replace_file
from service.errors import InvalidInputError, UnknownError
from service.registry.described import describe_version
from service.registry.errors import DamagedVersionError
from service.registry.layout import READABLE, Layout, check_name

ROLLOUT = "rollout"
MOST_OF_A_CANARY = 0.5
Mode = Literal["shadow", "canary"]


class Rollout(BaseModel):
    """What is tried, how, and since when; ended_at and reason once it is not any more.

    share: of the requests that the candidate answers (canary) or also answers (shadow). beside:
    the version that served when it began.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode
    version: int = Field(ge=1)
    share: float = Field(gt=0, le=1)
    started_at: datetime
    beside: int | None = None
    ended_at: datetime | None = None
    reason: str | None = None

    @property
    def is_active(self) -> bool:
        """It has not been ended."""
        return self.ended_at is None

    def is_tried_beside(self, serving: int) -> bool:
        """Not beside any other version than the one it was begun beside."""
        return self.is_active and self.beside == serving

    @classmethod
    def begun(cls, mode: Mode, version: int, share: float) -> Self:
        """From now on."""
        return cls(mode=mode, version=version, share=share, started_at=datetime.now(UTC))


def read_rollout(layout: Layout, name: str) -> Rollout | None:
    """The last one of a name, ended or not; None without any. Raises DamagedVersionError."""
    path = layout.root / check_name(name) / ROLLOUT
    try:
        return Rollout.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise DamagedVersionError(f"{path} cannot be read: {error}") from error


def start_rollout(layout: Layout, name: str, rollout: Rollout) -> None:
    """Have running services try a version; the one before it ends.

    Raises UnknownError, InvalidInputError for a version that serves already or cannot be tried.
    """
    check_name(name)
    with layout.lock():
        serving = layout.serving(name)
        if serving is None:
            raise UnknownError(f"no model {name!r} is registered in {layout.root}")
        _check_candidate(layout, name, serving, rollout)
        _write(layout, name, rollout.model_copy(update={"beside": serving}))


def _check_candidate(layout: Layout, name: str, serving: int, rollout: Rollout) -> None:
    candidate = describe_version(layout, name, rollout.version).manifest
    if rollout.version == serving:
        raise InvalidInputError(f"version {serving} of {name!r} serves already")
    present = describe_version(layout, name, serving).manifest
    check_same_input(present.schema_digest, candidate.schema_digest)
    if present.explainer.method is not None and candidate.explainer.method is None:
        raise InvalidInputError(
            f"version {rollout.version} explains nothing, and version {serving}, which serves, does"
        )
    if rollout.mode == "canary" and rollout.share > MOST_OF_A_CANARY:
        raise InvalidInputError(
            f"a canary answers at most {100 * MOST_OF_A_CANARY:g} % of the requests: it is judged "
            "by the serving version's answers to the others"
        )


def check_same_input(serving: str, candidate: str) -> None:
    """By the digests of their schemas: a request is read once for both. InvalidInputError."""
    if serving != candidate:
        raise InvalidInputError(
            "the candidate's input schema is not the serving version's: a request could not be "
            "answered by both (`explaind gate` shows the difference)"
        )


def end_rollout(
    layout: Layout, name: str, reason: str, *, begun_at: datetime | None = None
) -> bool:
    """End what is tried; begun_at: only that one. False where there was none."""
    with layout.lock():
        rollout = read_rollout(layout, name)
        if rollout is None or not rollout.is_active:
            return False
        if begun_at is not None and rollout.started_at != begun_at:
            return False
        _end(layout, name, rollout, reason)
        return True


def end_held(layout: Layout, name: str, reason: str) -> None:
    """End what is tried, if anything is, for the caller who holds the lock. A damaged file keeps
    nobody from promoting.
    """
    with suppress(DamagedVersionError):
        rollout = read_rollout(layout, name)
        if rollout is not None and rollout.is_active:
            _end(layout, name, rollout, reason)


def _end(layout: Layout, name: str, rollout: Rollout, reason: str) -> None:
    ended = {"ended_at": datetime.now(UTC), "reason": reason}
    _write(layout, name, rollout.model_copy(update=ended))


def _write(layout: Layout, name: str, rollout: Rollout) -> None:
    """The caller holds the lock."""
    document = rollout.model_dump_json().encode()
    replace_file(layout.root / name / ROLLOUT, document, mode=READABLE)
