"""What goes into a registration, what its steps hand on, and what a person reads of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from explainers.base import Background, Explainer, FloatArray, Level, Naming
from schemas import ModelSchema
from service.models.base import NativeModel
from service.models.formats import Artifact
from service.registry.building import CalledFactory, ExplainerFactory
from service.registry.manifest import AllowedColumn, FitEntry

if TYPE_CHECKING:
    import pandas as pd

    from service.registry.called import Explained


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may decide at registration; the defaults suit most models."""

    classes: Sequence[str] | None = None
    categories: Mapping[str, tuple[Level, ...]] = field(default_factory=dict)
    schema: ModelSchema | None = None
    allow_columns: Sequence[str] = ()
    """Text columns that are taken although they hold personal data or very many levels."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Where columns come from, by name: their `x-source`."""

    background_rows: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The model and the table it is registered with."""

    artifact: Artifact
    native: NativeModel
    frame: "pd.DataFrame"
    labels: "pd.Series"


@dataclass(frozen=True, slots=True)
class Report:
    """What a person reads after a registration; `card.summary` prints it."""

    name: str
    version: int
    quality: str
    ignored_columns: tuple[str, ...]
    strongest: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Work:
    """What the steps of one registration hand on to each other."""

    source: Source
    options: Options
    say: Callable[[str], None]
    schema: ModelSchema
    rows: FloatArray
    outputs: FloatArray
    scores: FloatArray
    classes: tuple[Level, ...] | None
    quality: str
    """How well the model fits the data, in words."""
    fit: FitEntry
    background: Background
    background_bytes: bytes
    naming: Naming
    warnings: list[str] = field(default_factory=list)
    allowed: tuple[AllowedColumn, ...] = ()
    factory: ExplainerFactory | None = None
    explainer: Explainer | None = None
    called: CalledFactory | None = None
    """Where there is no exact form; then `explained` are the rows it was proven on."""
    explained: "Explained | None" = None
    reason: str | None = None
    proven: dict[str, float | None] = field(default_factory=dict)
