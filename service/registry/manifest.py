"""What a registered version says of itself; the digest of this file is the version's digest."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from explainers.base import Engine, Level, Link, Method, OutputSpace
from service.models.base import Task
from service.models.formats import Format


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """A file of the version directory, as it was when written."""

    sha256: str
    size: int


class ArtifactEntry(_Part):
    """The model's own file and what is needed to read it; source: where it was fetched, if not
    from a file.
    """

    file: str
    format: Format
    library: str
    digest: str
    trees_used: int | None
    source: str | None = None
    names: tuple[str, ...]
    categories: dict[str, tuple[Level, ...]]


class CallsEntry(_Part):
    """How an explainer that only calls the model does so: see `PermutationConfig`."""

    passes: int
    target: float
    budget_rows: int
    rows_per_call: int


class ExplainerEntry(_Part):
    """How this version is explained; method None when it is not.

    reason: why there is no exact form, None where there is one. calls: None with one.
    """

    method: Method | None
    engine: Engine | None
    exact: bool | None = None
    reason: str | None
    calls: CallsEntry | None = None
    output_space: OutputSpace
    link: Link
    output_names: tuple[str, ...]
    tolerance: float
    config_digest: str


class BackgroundEntry(_Part):
    """How the reference rows were drawn."""

    digest: str
    rows: int
    seed: int
    drawn_from_rows: int


class CostEntry(_Part):
    """Calibrated on the registering machine, one thread, seconds.

    Where the model is called: how many rows of large calls it evaluates a second, how many an
    explained row took, and how many it takes at most.
    """

    predict_row: float
    predict_row_in_batch: float = 0.0
    explain_row: float
    explain_row_in_batch: float
    evaluate_rows_per_second: float | None = None
    explain_model_rows: int = 0
    explain_model_rows_at_most: int = 0


class ProofEntry(_Part):
    """What was checked at registration, and the worst that was seen (relative).

    oracle_z: the sampler's largest distance from brute force, in its own standard errors.
    """

    data_rows: int
    edge_rows: int
    parse_gap: float | None
    engines_gap: float | None = None
    oracle_gap: float | None
    oracle_z: float | None = None
    oracle_rows: int


class FitEntry(_Part):
    """How well the model fits the rows of the data that were looked at, by name of the measure."""

    rows: int
    measures: dict[str, float]


class AllowedColumn(_Part):
    """A text column that a person allowed whatever it holds: how many distinct values the model or
    the data had, and in how many of them which kind of personal data was found.
    """

    column: str
    values: int
    findings: dict[str, int]


class Manifest(_Part):
    """Everything that identifies a version."""

    schema_version: Literal["1"] = "1"
    name: str
    version: int
    created_at: datetime
    task: Task
    classes: tuple[Level, ...] | None
    artifact: ArtifactEntry
    explainer: ExplainerEntry
    background: BackgroundEntry
    schema_digest: str
    feature_names_digest: str
    category_map_digest: str
    libraries: dict[str, str]
    service_version: str
    cost: CostEntry
    proof: ProofEntry
    fit: FitEntry | None = None
    warnings: tuple[str, ...]
    allowed_columns: tuple[AllowedColumn, ...] = ()
    files: dict[str, FileEntry]
