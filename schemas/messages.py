"""The documents the API answers with, as clients read them."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from schemas.reasons import DecisionReasons
from schemas.strict_document import Document

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
"""Keeps its JSON type: 1, 1.0, true and "1" stay what they are."""

Lane = Literal["inline", "queued"]
Method = Literal[
    "tree_interventional",
    "linear",
    "permutation",
    "exact",
    "kernel",
    "interactions",
    "lime",
    "integrated_gradients",
]
"""What a past prediction can be explained by; the first four are some models' own."""

Engine = Literal["table", "walk", "closed_form", "sampler", "enumeration"]
OutputSpace = Literal["log_odds", "margin", "probability", "log", "raw"]
Link = Literal["logit", "softmax", "log", "identity"]
Status = Literal["complete", "pending", "failed", "skipped"]
ListedStatus = Literal["complete", "pending", "failed", "skipped", "erased"]
Task = Literal["binary", "multiclass", "regression"]

REQUEST_ID_PATTERN = "^[A-Za-z0-9._-]{8,64}$"

PerOutput = list[list[float] | None]
"""Shape (N, C); of a record, null for an instance that was erased."""
PerFeature = list[list[list[float]] | None]
"""Shape (N, F, C), likewise."""

_COMPUTED = (
    "values",
    "base_values",
    "outputs",
    "additivity_error",
    "top",
    "engine",
    "exact",
    "seed",
    "standard_errors",
)
_OPTIONAL_WHEN_COMPLETE = {"seed", "standard_errors"}


class ModelReference(Document):
    """The registered version that answered."""

    name: str
    version: int
    digest: str


class ClassPrediction(Document):
    """A classifier's answer for one instance; label keeps its JSON type. Probabilities and decision
    are null for callers who may not see every column.
    """

    label: Scalar
    probabilities: dict[str, float] | None
    decision: Scalar | None = None


class ValuePrediction(Document):
    """A regression's or ranker's answer for one instance; value is null for callers who may not see
    every column.
    """

    value: float | None
    decision: Scalar | None = None


Prediction = ClassPrediction | ValuePrediction


class RowWarning(Document):
    """A valid value unlike the training data."""

    model_config = ConfigDict(title="Warning")

    pointer: str
    code: Literal["out_of_training_range", "unseen_category"]


class TopEntry(Document):
    """One of the strongest contributions to one instance's outputs."""

    feature: str
    value: Scalar | None
    contribution: float
    output: str


class VisibleEntry(Document):
    """How strongly a column speaks for or against an output, among those the caller may see.

    Of the model in which the masked columns are absent; rank 1 is the strongest.
    """

    feature: str
    rank: int
    sign: Literal[-1, 0, 1]
    output: str


class Links(Document):
    """Where the explanation is read again."""

    self_: Annotated[str, Field(alias="self")]


class Interactions(Document):
    """Pairs of columns, (N, F, F, C): halves of the interactions, main effects on the diagonal;
    a column's pairs add up to its value.
    """

    values: list[PerFeature | None]
    standard_errors: list[PerFeature | None] | None


class LocalModel(Document):
    """LIME: a weighted linear model around each instance. Not Shapley values."""

    coefficients: PerFeature
    intercept: PerOutput
    r2: PerOutput
    samples: int
    kernel_width: float
    ridge: float


class PathAttribution(Document):
    """Integrated gradients from a baseline to each instance. Not Shapley values."""

    attributions: PerFeature
    baseline: list[float]
    completeness_gap: PerOutput
    steps: int


class ExplanationBody(Document):
    """Attributions of N instances over F columns and C outputs; null arrays until complete, and
    null in them for an instance that was erased.

    values + base_values add up to outputs in output_space, within additivity_error (per instance).
    """

    model_config = ConfigDict(title="Explanation")

    status: Status
    reason: str | None
    lane: Lane | None
    method: Method | None
    engine: Engine | None
    exact: bool | None
    output_space: OutputSpace
    link: Link
    output_names: list[str]
    feature_names: list[str]
    values: PerFeature | None
    base_values: PerOutput | None
    outputs: PerOutput | None
    standard_errors: PerFeature | None
    additivity_error: list[float | None] | None
    top: list[list[TopEntry] | None] | None
    background_digest: str | None
    seed: list[int | None] | None
    model_evaluations: int | None
    duration_seconds: float | None
    caveat: str
    links: Links
    interactions: Interactions | None = None
    local_model: LocalModel | None = None
    path: PathAttribution | None = None
    reasons: Annotated[
        list[DecisionReasons | None] | None,
        Field(
            description="By instance, null where the decision is not adverse; absent where policy "
            "asks for none."
        ),
    ] = None
    visible: Annotated[
        list[list[VisibleEntry] | None] | None,
        Field(description="Only for callers who may not see every column: all they get."),
    ] = None

    @property
    def is_shapley(self) -> bool:
        """LIME and integrated gradients stand in objects of their own and fill no array."""
        return self.local_model is None and self.path is None

    @property
    def is_withheld(self) -> bool:
        """The caller may not see every column of the model."""
        return "visible" in self.model_fields_set

    @model_validator(mode="after")
    def _agrees_with_status(self) -> Self:
        is_complete = self.status == "complete" and self.is_shapley
        if self.is_withheld:
            return self
        for name in _COMPUTED:
            is_null = getattr(self, name) is None
            if is_complete and is_null and name not in _OPTIONAL_WHEN_COMPLETE:
                raise ValueError(f"{name} must not be null once complete")
            if not is_complete and not is_null and (self.is_shapley or name != "seed"):
                raise ValueError(f"{name} must be null until complete")
        if self.status in {"failed", "skipped"} and self.reason is None:
            raise ValueError("reason must say why there is no explanation")
        if is_complete and self.exact != (self.seed is None):
            raise ValueError("seed is null exactly when the explanation is exact")
        return self

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        features, outputs = len(self.feature_names), len(self.output_names)
        for cube in (self.values, self.standard_errors):
            if cube is not None and not all(_is_matrix(rows, features, outputs) for rows in cube):
                raise ValueError("values and standard_errors must have the shape (N, F, C)")
        for matrix in (self.base_values, self.outputs):
            if matrix is not None and not _is_matrix(matrix, len(matrix), outputs):
                raise ValueError("base_values and outputs must have the shape (N, C)")
        per_instance = (
            self.values,
            self.standard_errors,
            self.base_values,
            self.outputs,
            self.additivity_error,
            self.top,
            self.seed,
        )
        if len({len(array) for array in per_instance if array is not None}) > 1:
            raise ValueError("arrays must agree on the number of instances")
        return self


class Answer(Document):
    """The answer to POST /predict; explanation is null unless asked for."""

    schema_version: Literal["1"]
    request_id: str
    model: ModelReference
    predictions: list[Prediction]
    warnings: list[RowWarning]
    explanation: ExplanationBody | None


class Provenance(Document):
    """Where a record's numbers come from."""

    model_digest: str
    artifact_digest: str
    schema_digest: str
    background_digest: str | None
    explainer_config_digest: str | None
    library_versions: dict[str, str]
    service_version: str
    seed: list[int | None] | None
    lane: Lane | None
    worker: str | None
    attempt: Annotated[
        int | None, Field(description="Of a worker's: which delivery of its job it was.")
    ] = None
    queue_seconds: Annotated[
        float | None, Field(description="Of a worker's: how long its job had been queued.")
    ] = None
    cpu_seconds: Annotated[
        float | None, Field(description="Of the processor, for the explanation.")
    ] = None
    received_at: AwareDatetime
    completed_at: AwareDatetime | None
    principal: str


class Record(Document):
    """The answer to GET /explanations/{request_id}."""

    request_id: str
    received_at: AwareDatetime
    parent_request_id: Annotated[
        str | None, Field(description="Of the request this explains again; absent otherwise.")
    ] = None
    erased_in_part: Annotated[
        bool,
        Field(
            description="What was about a subject who has been erased is null; absent otherwise."
        ),
    ] = False
    model: ModelReference
    instances: list[dict[str, Scalar | None] | None]
    predictions: list[Prediction | None]
    explanation: ExplanationBody | None
    provenance: Provenance


class ExplainRequest(Document):
    """The body of POST /explanations."""

    request_id: Annotated[
        str, Field(pattern=REQUEST_ID_PATTERN, description="Of the prediction to explain again.")
    ]
    method: Annotated[Method | None, Field(description="Null or absent: the model's own.")] = None


class Accepted(Document):
    """A past request's explanation was asked for or called off; links.self says how it ends."""

    request_id: str
    parent_request_id: str | None
    status: Status
    links: Links


class RecordSummary(Document):
    """One line of a record listing; status and lane are null where nothing was explained. Of an
    erased record the rest stays.
    """

    request_id: str
    received_at: AwareDatetime
    model: ModelReference
    status: ListedStatus | None
    lane: Lane | None


class RecordPage(Document):
    """The answer to GET /explanations, newest first; next_cursor is null on the last page."""

    items: list[RecordSummary]
    next_cursor: str | None


class ReviewSample(Document):
    """The answer to GET /models/{name}/review: explained requests drawn uniformly for people to
    look at, in the order of the draw, so that the first few are a uniform sample too.
    """

    size: int
    since: AwareDatetime
    until: AwareDatetime
    items: list[RecordSummary]


class PredictRequest(Document):
    """The body of POST /predict, whatever the model."""

    instances: Annotated[list[dict[str, Scalar | None]], Field(min_length=1)]
    subjects: list[Annotated[str, Field(min_length=1, max_length=256)] | None] | None = None


class ModelInfo(Document):
    """The answer to GET /models/{name}."""

    name: str
    serving_version: int
    versions: list[int]
    task: Task
    json_schema: dict[str, object]
    output_space: OutputSpace
    method: Method | None
    cost_seconds_per_instance: float | None
    sample_request: PredictRequest


class ModelList(Document):
    """The answer to GET /models."""

    items: list[ModelInfo]


def _is_matrix(rows: Sequence[Sequence[float] | None] | None, n_rows: int, n_columns: int) -> bool:
    """Whether all of it that was not erased has that shape."""
    return rows is None or (
        len(rows) == n_rows and all(row is None or len(row) == n_columns for row in rows)
    )
