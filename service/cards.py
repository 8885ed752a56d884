"""A model's card as it is now: what its version says for ever, what people wrote, what goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from service.drift.baseline import Baseline
from service.drifting import compared_now, limits_of
from service.evidence import EvidenceError, EvidenceStore
from service.performance.known import measured_version
from service.performance.measures import Estimate, figures
from service.performance.tally import ROWS
from service.performance.windows import summed
from service.registry.described import DescribedVersion, describe_version
from service.registry.errors import DamagedVersionError
from service.registry.layout import SERVING, Layout, sha256_of
from service.registry.rollouts import Rollout, read_rollout
from service.registry.sections import CardState, SectionState, card_state
from service.settings import Settings

CARD = "card.md"
MOST_MOVED = 10


class Drift(NamedTuple):
    """rows: counted in the last hours; moved: kinds and columns of the alarms. None: too few rows
    to say.
    """

    rows: int
    is_alarm: bool | None
    moved: Sequence[str]


class Performance(NamedTuple):
    """What labels that came later say of a time; measures are empty where there are too few."""

    rows: int
    days: float
    measures: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Today:
    """What is true now and was not known at registration. drift and performance: None where the
    evidence store was not asked, or could not say.
    """

    serving: int | None
    serving_since: datetime | None
    is_disabled: bool
    rollout: Rollout | None
    drift: Drift | None = None
    performance: Performance | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One version's card. frozen: the Markdown it was registered with."""

    known: DescribedVersion
    state: CardState
    frozen: str
    today: Today

    @property
    def name(self) -> str:
        """Of the model."""
        return self.known.manifest.name

    @property
    def version(self) -> int:
        """Which one it is about."""
        return self.known.manifest.version

    @property
    def status(self) -> str:
        """`unwritten`, `incomplete` (stale, or a required section empty) or `current`."""
        if not self.state.is_begun:
            return "unwritten"
        return "incomplete" if self.state.troubles else "current"

    def to_json(self) -> dict[str, object]:
        """As the route and `--json` give it."""
        today = self.today
        drift, performance = today.drift, today.performance
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.known.digest,
            "status": self.status,
            "troubles": self.state.troubles,
            "sections": [_section_json(state) for state in self.state.sections],
            "serving": today.serving,
            "serving_since": today.serving_since,
            "disabled": today.is_disabled,
            "rollout": None if today.rollout is None else today.rollout.model_dump(mode="json"),
            "drift": None if drift is None else drift._asdict(),
            "performance": None if performance is None else _performance_json(performance),
            "frozen": self.frozen,
        }


def read_card(
    layout: Layout, name: str, version: int, settings: Settings, store: EvidenceStore | None
) -> Card:
    """Cost: files of a few kilobytes, and with a store the sums of the drift and label windows.

    Raises UnknownError, DamagedVersionError, UnavailableError, InvalidInputError. A store that is
    away costs the card what the store would have said.
    """
    known = describe_version(layout, name, version)
    state = card_state(layout, known)
    return Card(known, state, _frozen(layout, known), _today(layout, known, settings, store))


def _frozen(layout: Layout, known: DescribedVersion) -> str:
    path = layout.folder(known.manifest.name, known.manifest.version) / CARD
    try:
        data = path.read_bytes()
        if sha256_of(data) != known.manifest.files[CARD].sha256:
            raise DamagedVersionError(f"{path} is not the file that was registered")
        return data.decode()
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DamagedVersionError(f"{path}: {error!r}") from error


def _today(
    layout: Layout, known: DescribedVersion, settings: Settings, store: EvidenceStore | None
) -> Today:
    name, version = known.manifest.name, known.manifest.version
    return Today(
        serving=layout.serving(name),
        serving_since=_changed_at(layout, name),
        is_disabled=layout.is_disabled(name),
        rollout=read_rollout(layout, name),
        drift=None if store is None else _drift(layout, name, version, settings, store),
        performance=None if store is None else _performance(layout, name, version, settings, store),
    )


def _changed_at(layout: Layout, name: str) -> datetime | None:
    """When the pointer to the serving version was written."""
    try:
        return datetime.fromtimestamp((layout.root / name / SERVING).stat().st_mtime, UTC)
    except OSError:
        return None


def _drift(
    layout: Layout, name: str, version: int, settings: Settings, store: EvidenceStore
) -> Drift | None:
    try:
        baseline = Baseline.read(layout, name, version)
        found = compared_now(store, baseline, limits_of(settings), settings.drift_window_hours)
    except (EvidenceError, DamagedVersionError):
        return None
    is_known = found.has_enough("feature")
    moved = [f"{one.kind} {one.feature}" for one in found.findings if one.is_alarm]
    return Drift(found.rows[1], found.is_alarm if is_known else None, moved[:MOST_MOVED])


def _performance(
    layout: Layout, name: str, version: int, settings: Settings, store: EvidenceStore
) -> Performance | None:
    days = settings.performance_window_days
    try:
        own = measured_version(layout, name, version)
        tally = summed(store, own, since=datetime.now(UTC) - timedelta(days=days)).tally
    except (EvidenceError, DamagedVersionError):
        return None
    rows = int(tally[ROWS])
    enough = rows >= settings.performance_min_labels
    return Performance(rows, days, figures(own.shape, tally) if enough else {})


def _performance_json(performance: Performance) -> dict[str, object]:
    measures = {
        name: {"value": float(each.value), "standard_error": float(each.standard_error)}
        for name, each in performance.measures.items()
    }
    return performance._asdict() | {"measures": measures}


def _section_json(state: SectionState) -> dict[str, object]:
    title, is_required = state.section
    return asdict(state) | {"title": title, "required": is_required}
