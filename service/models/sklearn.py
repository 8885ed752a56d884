"""scikit-learn estimators and pipelines, read from skops files."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from explainers.base import (
    Derivation,
    FloatArray,
    IdentityDerivation,
    Level,
    Link,
    OutputSpace,
    RawColumns,
)
from explainers.preprocess import PipelineDerivation, PreparedFrame, Reach, input_names
from explainers.steps import Encoding, StepTrace, trace_steps
from schemas.rows import UNSEEN_CODE
from service.models.base import InputColumns, LinearForm, Served, Task, TreeForm, Unknown
from service.models.columns import Levels, StoredColumns, chosen_names, input_columns
from service.models.errors import ModelLoadError
from service.models.sklearn_derived import Shortcut, find_shortcut
from service.models.sklearn_file import read_estimator
from service.models.sklearn_final import final_step
from service.models.sklearn_histogram import HistogramTrees
from service.models.sklearn_step import Estimator, FinalStep, Matrix, named


@dataclass(eq=False)
class SklearnModel:
    """A loaded estimator or pipeline behind `NativeModel`."""

    steps: Any
    """The fitted transformers before the estimator's own trees or weights, None without any."""

    final: FinalStep
    columns: InputColumns
    encoded: RawColumns
    """The columns with only those levels that the steps' encoders know as such."""

    classes: tuple[Level, ...] | None
    format: str = "skops"

    def __post_init__(self) -> None:
        self._prepare = None if self.steps is None else PreparedFrame(self.steps, self.encoded)
        self._shortcut = self._find_shortcut()
        self._never_missing = np.flatnonzero(~np.array(self.columns.accepts_missing))
        self.n_classes = 1 if self.classes is None else len(self.classes)
        self.task = _task(self.n_classes)
        self.library: str = self.final.traits.library
        self.output_space: OutputSpace = self.final.traits.output_space
        self.link: Link = self.final.traits.link
        self.is_float32: bool = self.final.traits.is_float32
        self.trees_used: int | None = self.final.traits.trees_used

    def predict(self, X: FloatArray) -> Served:
        """Served numbers of (N, F) raw rows; ValueError for missing where it is not accepted."""
        if len(self._never_missing):
            self._refuse_missing(X)
        served = None if self._shortcut is None else self._shortcut.predict(X)
        if served is not None:
            return served
        if self._prepare is None:
            return self.final.serve(X)
        if not self._prepare.trace.refusals:
            return self.final.serve(self._prepare(X))
        # Steps that mix columns use BLAS, whose last bits depend on the batch.
        parts = [self.final.serve(self._prepare(X[row : row + 1])) for row in range(len(X))]
        return Served(
            np.concatenate([part.outputs for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) outputs: steps and estimator are called once for all rows."""
        if len(self._never_missing):
            self._refuse_missing(X)
        served = None if self._shortcut is None else self._shortcut.predict(X)
        if served is not None:
            return served.outputs
        return self.final.evaluate(X if self._prepare is None else self._prepare(X))

    def _refuse_missing(self, X: FloatArray) -> None:
        refused = np.isnan(X.take(self._never_missing, axis=1)).any(axis=0)
        if refused.any():
            column = self._never_missing[int(np.argmax(refused))]
            raise ValueError(f"column {self.columns.raw.names[column]!r} may not be missing")

    def form(self) -> TreeForm | LinearForm:
        """What an exact explainer works on; UnsupportedModelError names why there is none."""
        return self.final.form(self._derivation())

    def _derivation(self) -> Derivation:
        if self.steps is None:
            return IdentityDerivation.over(len(self.encoded))
        return self._pipeline() if self._shortcut is None else self._shortcut.derivation

    def _pipeline(self) -> PipelineDerivation:
        return PipelineDerivation(self.steps, self.encoded, absent=self.final.traits.absent)

    def _find_shortcut(self) -> Shortcut | None:
        if self._prepare is None or self._prepare.trace.refusals:
            return None
        unseen = tuple(unknown == "ignore" for unknown in self.columns.unknown)
        reach = Reach(self.columns.accepts_missing, unseen)
        return find_shortcut(self._pipeline(), self.final, self.encoded, reach)


def load_sklearn(
    data: bytes,
    *,
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, Levels] | None = None,
) -> SklearnModel:
    """Read a fitted estimator or pipeline from a skops file.

    names serve where it was fitted on an unnamed array. categories name the levels of columns that
    reach the model as codes; columns with an encoder have theirs from it (a constant that an
    imputer fills in counts as one). ModelLoadError for files that are not trusted or not sound.
    Cost: one or two predictions per column, to learn where the library takes missing values and
    unseen levels, and about 1,000 rows through the steps to prove their compiled form.
    """
    model = read_estimator(data)
    steps, estimator = _split(model)
    final = final_step(estimator)
    if isinstance(final, HistogramTrees):
        steps = _joined(steps, final.preprocessor)
    n_columns = int(model.n_features_in_)
    trace = StepTrace() if steps is None else trace_steps(steps, n_columns)
    own_names = input_names(model)
    called = chosen_names(own_names, given=names, default=_numbered(n_columns))
    stored = _stored_columns(trace, called)
    raw = input_columns(stored, categories=categories or {}, unknown="refuse").raw
    encoded = RawColumns(stored.names, stored.levels)
    is_taken = _library_takes(steps, _library_call(estimator, final), encoded)
    _check_codes(trace, raw, is_taken)
    return SklearnModel(
        steps=steps,
        final=final,
        columns=InputColumns(
            raw=raw,
            accepts_missing=tuple(is_taken(column, np.nan) for column in range(n_columns)),
            unknown=tuple(_unknown(trace, raw, column, is_taken) for column in range(n_columns)),
            names_are_given=own_names is None and names is not None,
        ),
        encoded=encoded,
        classes=_classes(model),
    )


def _check_codes(trace: StepTrace, raw: RawColumns, is_taken: Callable[[int, float], bool]) -> None:
    """ModelLoadError where levels would reach as codes what takes none: text encoded inside."""
    for column, levels in enumerate(raw.levels):
        is_coded = levels is not None and column not in trace.encodings
        if is_coded and not is_taken(column, 0.0):
            raise ModelLoadError(
                f"column {raw.names[column]!r}: the model reads no codes of levels; a pipeline "
                "that encodes them must be the outermost estimator"
            )


def _stored_columns(trace: StepTrace, names: tuple[str, ...]) -> StoredColumns:
    return StoredColumns(
        names=names,
        levels=tuple(_levels(trace, column) for column in range(len(names))),
        is_category=(False,) * len(names),
        why_no_levels="no encoder reads it",
    )


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"x{index}" for index in range(count))


def dump_sklearn(model: object) -> tuple[bytes, tuple[Level, ...] | None]:
    """A fitted estimator or pipeline as a skops file, and its classes."""
    from skops.io import dumps

    try:
        return dumps(model), _classes(model)
    except TypeError as error:
        raise ModelLoadError(f"skops cannot store the model: {error}") from error
    except RecursionError as error:
        raise ModelLoadError(
            "skops cannot store the model: a part of it refers back to the whole; histogram "
            "boosting stopped early by a scorer can be stored after "
            "`del model._raw_predict, model._scorer`"
        ) from error


def _split(model: Estimator) -> tuple[Any, Estimator]:
    from sklearn.pipeline import Pipeline

    if not isinstance(model, Pipeline):
        return None, model
    return model[:-1] if len(model.steps) > 1 else None, model.steps[-1][1]


def _joined(steps: Any, last: Any) -> Any:  # noqa: ANN401
    from sklearn.pipeline import Pipeline

    if steps is None or last is None:
        return last if steps is None else steps
    return Pipeline([*steps.steps, ("preprocessor of the last step", last)])


def _levels(trace: StepTrace, column: int) -> Levels | None:
    encodings = trace.encodings.get(column, [])
    # Encoders that ignore what they do not know leave any number open to the other readers.
    if not encodings or (column in trace.as_numbers and _ignores_unknown(encodings)):
        return None
    strict = [encoding for encoding in encodings if not encoding.ignores_unknown]
    known_to_all = [set(_known_levels(encoding)) for encoding in strict]
    union = dict.fromkeys(chain.from_iterable(_known_levels(encoding) for encoding in encodings))
    return tuple(level for level in union if all(level in known for known in known_to_all))


def _known_levels(encoding: Encoding) -> list[Level]:
    # None is missing, and so is NaN, the one value that differs from itself.
    levels = encoding.categories.tolist()
    return [level for level in levels if level is not None and level == level]  # noqa: PLR0124


def _unknown(
    trace: StepTrace, raw: RawColumns, column: int, is_taken: Callable[[int, float], bool]
) -> Unknown:
    encodings = trace.encodings.get(column, [])
    if raw.levels[column] is None or not encodings or not _ignores_unknown(encodings):
        return "refuse"
    # An encoder may ignore what the estimator then refuses: as NaN, say.
    is_refused = is_taken(column, 0.0) and not is_taken(column, UNSEEN_CODE)
    return "refuse" if is_refused else "ignore"


def _ignores_unknown(encodings: list[Encoding]) -> bool:
    return all(encoding.ignores_unknown for encoding in encodings)


def _library_call(estimator: Estimator, final: FinalStep) -> Callable[[Matrix], object]:
    if isinstance(final, HistogramTrees):
        return final.serve
    return lambda matrix: estimator.predict(named(estimator, matrix))


def _library_takes(
    steps: Any,  # noqa: ANN401
    predict: Callable[[Matrix], object],
    encoded: RawColumns,
) -> Callable[[int, float], bool]:
    """Whether the library predicts a row of zeros with one code in one column."""
    prepare = None if steps is None else PreparedFrame(steps, encoded)

    def is_taken(column: int, code: float) -> bool:
        row = np.zeros((1, len(encoded)))
        row[0, column] = code
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predict(row if prepare is None else prepare(row))
        except (ValueError, TypeError):
            return False
        return True

    return is_taken


def _task(n_classes: int) -> Task:
    if n_classes == 1:
        return "regression"
    return "binary" if n_classes == 2 else "multiclass"


def _classes(model: object) -> tuple[Level, ...] | None:
    classes = getattr(model, "classes_", None)
    return None if classes is None else tuple(np.asarray(classes).tolist())
