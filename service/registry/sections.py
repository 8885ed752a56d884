"""What people write of a model, beside its versions: one Markdown file a section, which outlives
them, and says for which of them it was written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from explainers.base import Level
from service.durability import make_directory, replace_file
from service.errors import InvalidInputError, UnavailableError
from service.registry.described import KnownVersion
from service.registry.layout import READABLE, Layout, check_name

FOLDER = "card"
MOST_BYTES = 64 * 1024
MOST_CONFIRMED = 50
MARK, MARK_END = "<!-- explaind-card ", " -->"

Status = Literal["current", "stale", "empty"]


class Section(NamedTuple):
    """A heading, and whether a card is unfinished without it."""

    title: str
    is_required: bool


SECTIONS: Mapping[str, Section] = {
    "intended_use": Section("Intended use", is_required=True),
    "out_of_scope": Section("Out-of-scope use", is_required=False),
    "ethics": Section("Ethical considerations", is_required=False),
    "owner": Section("Owner and contact", is_required=True),
}


class Basis(BaseModel):
    """What a section was written for: a version, and what must be so in others for it to hold."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int
    at: datetime
    schema_digest: str
    task: str
    classes: tuple[Level, ...] | None
    method: str | None
    output_space: str

    @classmethod
    def of(cls, known: KnownVersion) -> Self:
        """Of a version, now."""
        manifest = known.manifest
        return cls(
            version=manifest.version,
            at=datetime.now(UTC),
            schema_digest=manifest.schema_digest,
            task=manifest.task,
            classes=manifest.classes,
            method=manifest.explainer.method,
            output_space=manifest.explainer.output_space,
        )

    def changed(self, other: Self) -> list[str]:
        """What is otherwise there, in words."""
        names = {
            "schema_digest": "input schema",
            "task": "task",
            "classes": "classes",
            "method": "explanation method",
            "output_space": "output space",
        }
        return [
            name for field, name in names.items() if getattr(self, field) != getattr(other, field)
        ]


@dataclass(frozen=True, slots=True)
class SectionState:
    """One section as a version finds it. reason: why it is stale."""

    name: str
    status: Status
    text: str = ""
    written_for: int | None = None
    reason: str = ""

    @property
    def section(self) -> Section:
        """Its heading."""
        return SECTIONS[self.name]


@dataclass(frozen=True, slots=True)
class CardState:
    """All sections as a version finds them."""

    sections: Sequence[SectionState]

    @property
    def is_begun(self) -> bool:
        """Somebody has written any of it."""
        return any(state.status != "empty" for state in self.sections)

    @property
    def troubles(self) -> list[str]:
        """What of it is stale, and what is required and empty."""
        return [
            f"{state.name} is empty" if state.status == "empty" else f"{state.name} {state.reason}"
            for state in self.sections
            if state.status == "stale" or (state.status == "empty" and state.section.is_required)
        ]


def card_state(layout: Layout, known: KnownVersion) -> CardState:
    """The sections of a model, judged for one of its versions.

    Raises UnavailableError, InvalidInputError for a file that is no text.
    """
    name, present = known.manifest.name, Basis.of(known)
    return CardState([_state(layout, name, section, present) for section in SECTIONS])


def _state(layout: Layout, name: str, section: str, present: Basis) -> SectionState:
    text, confirmed = _read(_path(layout, name, section))
    if not text:
        return SectionState(section, "empty")
    if not confirmed:
        return SectionState(section, "stale", text, reason="was not confirmed for any version")
    fitting = [basis for basis in confirmed if not basis.changed(present)]
    if fitting:
        return SectionState(section, "current", text, fitting[-1].version)
    last = confirmed[-1]
    changes = ", ".join(last.changed(present))
    reason = f"was written for version {last.version}; since then changed: {changes}"
    return SectionState(section, "stale", text, last.version, reason)


def write_section(layout: Layout, known: KnownVersion, section: str, text: str) -> None:
    """Put a section's text in place of the present one, for a version; empty text removes it.

    Raises InvalidInputError, UnavailableError.
    """
    path = _path(layout, known.manifest.name, section)
    if len(text.encode()) > MOST_BYTES:
        raise InvalidInputError(f"{section}: at most {MOST_BYTES} bytes")
    with layout.lock():
        _write(path, text.strip(), [Basis.of(known)])


def confirm_sections(layout: Layout, known: KnownVersion) -> list[str]:
    """Say of every section that is there that it holds for a version too; which there are."""
    confirmed_now = []
    with layout.lock():
        for section in SECTIONS:
            path = _path(layout, known.manifest.name, section)
            text, confirmed = _read(path)
            if text:
                _write(path, text, [*confirmed, Basis.of(known)])
                confirmed_now.append(section)
    return confirmed_now


def _path(layout: Layout, name: str, section: str) -> Path:
    if section not in SECTIONS:
        raise InvalidInputError(f"there is no section {section!r}: {', '.join(SECTIONS)}")
    return layout.root / check_name(name) / FOLDER / f"{section}.md"


def _read(path: Path) -> tuple[str, list[Basis]]:
    """A section's text and what it was confirmed for; a mark that cannot be read confirms nothing,
    and is not shown.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "", []
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}") from error
    first, _, rest = content.partition("\n")
    if not (first.startswith(MARK) and first.endswith(MARK_END)):
        return content.strip(), []
    try:
        said = json.loads(first.removeprefix(MARK).removesuffix(MARK_END))
        return rest.strip(), [Basis.model_validate(basis) for basis in said]
    except (ValueError, TypeError, ValidationError):
        return rest.strip(), []


def _write(path: Path, text: str, confirmed: Sequence[Basis]) -> None:
    """The caller holds the lock."""
    latest = {(basis.version, basis.schema_digest): basis for basis in confirmed}
    kept = [basis.model_dump(mode="json") for basis in latest.values()][-MOST_CONFIRMED:]
    # A class may be called `-->`.
    said = json.dumps(kept).replace(">", "\\u003e")
    try:
        if not text:
            path.unlink(missing_ok=True)
            return
        make_directory(path.parent)
        content = f"{MARK}{said}{MARK_END}\n\n{text}\n".encode()
        replace_file(path, content, mode=READABLE)
    except OSError as error:
        raise UnavailableError(f"cannot write {path}: {error.strerror}") from error
