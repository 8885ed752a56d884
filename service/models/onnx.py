"""ONNX models, as scikit-learn, boosting and network exporters write them, run by ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, Level, Link, OutputSpace, UnsupportedModelError
from service.models.base import InputColumns, LinearForm, Served, Task, TreeForm
from service.models.columns import Levels, StoredColumns, chosen_names, input_columns
from service.models.errors import ModelLoadError
from service.models.onnx_file import Graph, read_graph
from service.models.probing import accepts_missing, check_rows, check_shares, first_answer

TYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.str_,
}
WHOLE: Mapping[Any, tuple[int, int] | None] = {
    np.int64: None,
    np.int32: (-(2**31), 2**31 - 1),
    np.bool_: (0, 1),
}
"""Kinds without fractions, and which of an integer column's numbers they hold: None for all."""

REALS = ("tensor(float)", "tensor(double)")
MAPS = "seq(map("
LABELS = ("tensor(int64)", "tensor(string)")
INSTALL = (
    "ONNX Runtime is not installed here; add it with .venv/bin/python -m pip install onnxruntime"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One input of the graph and the columns it takes: (N, width), or (N,) where it is flat."""

    name: str
    kind: Any
    start: int
    width: int
    is_flat: bool

    @property
    def takes_missing(self) -> bool:
        """Whether its numbers have a NaN."""
        return self.kind in (np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class Answer:
    """The output with the numbers, and in which order its columns come out of a map, if it is one:
    the runtime's are sorted by key, whatever order the classes have.
    """

    name: str
    keys: tuple[Level, ...] | None


@dataclass(eq=False)
class OnnxModel:
    """A loaded graph behind `NativeModel`; runs on one thread."""

    session: Any
    slots: tuple[Slot, ...]
    columns: InputColumns
    output: Answer
    task: Task
    n_classes: int
    output_space: OutputSpace
    is_float32: bool
    one_row_only: bool
    """The graph was exported for batches of one row."""

    classes: tuple[Level, ...] | None
    link: Link = "identity"
    library: str = "onnxruntime"
    format: str = "onnx"
    trees_used: int | None = None

    def predict(self, X: FloatArray) -> Served:
        """Served numbers of (N, F) raw rows, one run per row: a batch may have other last bits.

        ValueError where the graph takes no missing value, or cannot run.
        """
        scores = np.concatenate([self._run(X[row : row + 1]) for row in range(len(X))])
        return Served(self._outputs(scores), scores)

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) outputs from one run, unless the graph takes single rows only."""
        return self.predict(X).outputs if self.one_row_only else self._outputs(self._run(X))

    def _outputs(self, scores: FloatArray) -> FloatArray:
        return scores[:, 1:] if self.task == "binary" else scores

    def _run(self, X: FloatArray) -> FloatArray:
        feed = {slot.name: _fed(slot, X, self.columns) for slot in self.slots}
        return run(self.session, self.output, feed, len(X))

    def form(self) -> TreeForm | LinearForm:
        """Raises UnsupportedModelError."""
        raise UnsupportedModelError("an ONNX graph has no exact explainer")


def load_onnx(
    data: bytes,
    *,
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, Levels] | None = None,
) -> OnnxModel:
    """Load a graph whose inputs are one matrix, or one column each, and whose output is a value
    or, beside labels or not, class probabilities.

    names serve where it has a matrix; categories list the levels of text columns. ModelLoadError
    for files that are broken or unsafe, and where ONNX Runtime is not installed. Cost: a run per
    column, to learn where it takes missing values.
    """
    graph = read_graph(data)
    session = _session(data)
    slots = _slots(session.get_inputs(), names)
    columns = _columns(slots, names, categories or {})
    output, label = _chosen_output(session.get_outputs())
    answer = _answer(output, graph)

    def probed(row: FloatArray) -> FloatArray:
        feed = {slot.name: _fed(slot, row, columns) for slot in slots}
        return run(session, answer, feed, 1)

    first = first_answer(probed, len(columns.raw))
    width, task = first.shape[1], _task(first, has_label=label is not None)
    has_nan = [slot.takes_missing for slot in slots for _ in range(slot.width)]
    outputs = [value.name for value in (output, label) if value is not None]
    return OnnxModel(
        session=session,
        slots=slots,
        columns=replace(columns, accepts_missing=accepts_missing(has_nan, probed)),
        output=answer,
        task=task,
        n_classes=width,
        output_space="raw" if task == "regression" else "probability",
        is_float32=output.type != "tensor(double)" or any(s.kind is np.float32 for s in slots),
        one_row_only=any(value.shape[:1] == [1] for value in session.get_inputs()),
        classes=None if task == "regression" else answer.keys or graph.classes(outputs, width),
    )


def run(session: Any, output: Answer, feed: Mapping[str, NDArray[Any]], n_rows: int) -> FloatArray:  # noqa: ANN401
    """(N, K) of one output, float64; ValueError when the graph cannot run on these rows."""
    try:
        (found,) = session.run([output.name], feed)
    except Exception as error:
        # ONNX Runtime's exceptions share no base of their own.
        raise ValueError(f"ONNX Runtime: {str(error).splitlines()[0]}") from error
    if output.keys is not None:
        found = [[row[key] for key in output.keys] for row in found]
    scores = np.asarray(found, dtype=np.float64)
    check_rows(scores.shape, n_rows, giver="the graph")
    return scores.reshape(n_rows, -1)


def _session(data: bytes) -> Any:  # noqa: ANN401  # onnxruntime.InferenceSession
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelLoadError(INSTALL) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ModelLoadError(f"ONNX Runtime refuses the file: {reason}") from error


def _slots(values: Sequence[Any], names: tuple[str, ...] | None) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for value in values:
        kind, shape = TYPES.get(value.type), value.shape
        if kind is None or len(shape) not in (1, 2):
            raise ModelLoadError(f"input {value.name!r} is {value.type} {shape}: no columns")
        if isinstance(shape[0], int) and shape[0] != 1:
            raise ModelLoadError(
                f"input {value.name!r} takes {shape[0]} rows at a time; export it "
                "with a dynamic first dimension"
            )
        width = shape[1] if len(shape) == 2 else 1
        if not isinstance(width, int):
            if len(values) > 1 or names is None:
                raise ModelLoadError(f"input {value.name!r} does not say how many columns it has")
            width = len(names)
        start = slots[-1].start + slots[-1].width if slots else 0
        slots.append(Slot(value.name, kind, start, width, len(shape) == 1))
    if not slots:
        raise ModelLoadError("the graph has no inputs")
    return tuple(slots)


def _columns(
    slots: tuple[Slot, ...], names: tuple[str, ...] | None, categories: Mapping[str, Levels]
) -> InputColumns:
    count = slots[-1].start + slots[-1].width
    own = tuple(slot.name for slot in slots) if all(s.width == 1 for s in slots) else None
    if count == 1 and names is not None:
        own = None
    is_text = tuple(slot.kind is np.str_ for slot in slots for _ in range(slot.width))
    chosen = chosen_names(own, given=names, default=tuple(f"x{index}" for index in range(count)))
    stored = StoredColumns(
        names=chosen,
        levels=(None,) * count,
        is_category=is_text,
        why_no_levels="the graph does not say which texts it knows",
        names_are_given=own is None and names is not None,
    )
    columns = input_columns(stored, categories=categories, unknown="refuse")
    for name, levels, needs_text in zip(chosen, columns.raw.levels, is_text, strict=True):
        if needs_text and not all(isinstance(level, str) for level in levels or ()):
            raise ModelLoadError(f"the levels of {name!r} are not all text, which the graph reads")
    kinds = [slot.kind for slot in slots for _ in range(slot.width)]
    ranges = {name: WHOLE[kind] for name, kind in zip(chosen, kinds, strict=True) if kind in WHOLE}
    return replace(columns, whole=ranges)


def _fed(slot: Slot, X: FloatArray, columns: InputColumns) -> NDArray[Any]:
    block = X[:, slot.start : slot.start + slot.width]
    if not slot.takes_missing and np.isnan(block).any():
        raise ValueError(f"input {slot.name!r} takes no missing values")
    if slot.kind is np.str_:
        levels = columns.raw.levels[slot.start : slot.start + slot.width]
        texts = [
            np.array(known, dtype=object)[cells.astype(np.intp)]
            for known, cells in zip(levels, block.T, strict=True)
        ]
        made: NDArray[Any] = np.stack(texts, axis=1)
    else:
        with np.errstate(invalid="ignore"):
            made = np.ascontiguousarray(block, dtype=slot.kind)
        if not slot.takes_missing and not np.array_equal(made, block):
            raise ValueError(f"input {slot.name!r} takes only what {made.dtype} holds")
    return made[:, 0] if slot.is_flat else made


def _chosen_output(values: Sequence[Any]) -> tuple[Any, Any]:
    """The output with the numbers, and the one with labels, if any."""
    reals = [v for v in values if v.type in REALS or v.type.startswith(MAPS)]
    labels = [v for v in values if v.type in LABELS]
    if len(reals) != 1 or len(labels) > 1:
        listed = ", ".join(f"{value.name} {value.type}" for value in values)
        raise ModelLoadError(
            f"the graph's outputs are {listed}; expected are one of numbers and at most one of "
            "class labels"
        )
    return reals[0], labels[0] if labels else None


def _answer(output: Any, graph: Graph) -> Answer:  # noqa: ANN401  # onnxruntime.NodeArg
    if not output.type.startswith(MAPS):
        return Answer(output.name, None)
    keys = graph.keys(output.name)
    if not keys or len(set(keys)) < len(keys):
        raise ModelLoadError(
            f"output {output.name!r} is a map that does not list each class once; export the "
            "model without ZipMap: its probabilities as one tensor"
        )
    return Answer(output.name, keys)


def _task(first: FloatArray, *, has_label: bool) -> Task:
    if first.shape[1] == 1 and not has_label:
        return "regression"
    check_shares(first)
    return "binary" if first.shape[1] == 2 else "multiclass"
