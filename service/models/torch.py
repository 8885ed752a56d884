"""PyTorch programs over one matrix of rows, run operator by operator on one thread."""

import io
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, Level, Link, OutputSpace, UnsupportedModelError
from service.models.base import InputColumns, LinearForm, Served, Task, TreeForm, binary_scores
from service.models.columns import Levels, StoredColumns, chosen_names, input_columns
from service.models.errors import ModelLoadError
from service.models.links import c_link, logistic, softmax
from service.models.probing import accepts_missing, check_rows, check_shares, first_answer
from service.models.torch_file import (
    DTYPES,
    Node,
    Processor,
    Program,
    Ref,
    ScalarType,
    read_program,
)
from service.models.torch_operators import PYTHON_OPERATORS

INSTALL = "PyTorch is not installed here; add it with .venv/bin/python -m pip install torch"

Tensor = Any
"""torch.Tensor."""

Step = tuple[Callable[..., Any], Node]


@dataclass(eq=False)
class TorchModel:
    """A loaded program behind `NativeModel`."""

    program: Program
    steps: tuple[Step, ...]
    tensors: Mapping[str, Tensor]
    columns: InputColumns
    task: Task
    n_classes: int
    output_space: OutputSpace
    link: Link
    classes: tuple[Level, ...] | None
    library: str = "torch"
    format: str = "pt2"
    trees_used: int | None = None

    @property
    def is_float32(self) -> bool:
        """Whether the program's rows are float32."""
        return self.program.is_float32

    def predict(self, X: FloatArray) -> Served:
        """Served numbers of (N, F) raw rows, one run per row: a batch may have other last bits.

        Links are applied here, in float64. ValueError where the program cannot run.
        """
        given = np.concatenate([self._given(X[row : row + 1]) for row in range(len(X))])
        return Served(self._outputs(given), self._scores(given))

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) outputs from one run, unless the program takes single rows only."""
        if self.program.one_row_only:
            return self.predict(X).outputs
        outputs: FloatArray = self._outputs(self._given(X))
        return outputs

    def gradient(self, X: FloatArray) -> FloatArray:
        """(N, F, C) derivatives of each row's outputs by its columns, in output_space.

        ValueError where the program cannot run; UnsupportedModelError where its outputs have no
        derivative by its columns, or an operator has none.
        """
        import torch

        if self.program.one_row_only and len(X) != 1:
            return np.concatenate([self.gradient(X[row : row + 1]) for row in range(len(X))])
        rows = self._rows(X).requires_grad_()
        try:
            outputs = self._outputs(by_row(self._run(rows), len(X)))
        except (RuntimeError, LookupError, TypeError) as error:
            raise ValueError(f"PyTorch: {_first_line(error)}") from error
        try:
            parts = [
                torch.autograd.grad(outputs[:, output].sum(), rows, retain_graph=True)[0]
                for output in range(outputs.shape[1])
            ]
        except RuntimeError as error:
            raise UnsupportedModelError(
                f"the program has no gradient by its columns: {_first_line(error)}"
            ) from error
        stacked: FloatArray = torch.stack(parts, dim=2).detach().numpy().astype(np.float64)
        return stacked

    def form(self) -> TreeForm | LinearForm:
        """Raises UnsupportedModelError."""
        raise UnsupportedModelError("a PyTorch program has no exact explainer")

    def _outputs(self, given: Any) -> Any:  # noqa: ANN401  # arrays here, tensors for gradients
        if self.task != "binary" or given.shape[1] == 1:
            return given
        # Of two margins the log-odds, of two probabilities that of the second class.
        return given[:, 1:] - given[:, :1] if self.link == "logit" else given[:, 1:]

    def _scores(self, given: FloatArray) -> FloatArray:
        if self.task == "binary" and given.shape[1] == 1:
            return binary_scores(logistic(given)[:, 0])
        if self.link in ("logit", "softmax"):
            return softmax(given)
        link = c_link(self.link)
        return given if link is None else link(given)

    def _given(self, X: FloatArray) -> FloatArray:
        return run(self._run, self._rows(X))

    def _rows(self, X: FloatArray) -> Tensor:
        return rows_of(self.program, X)

    def _run(self, rows: Tensor) -> Tensor:
        return walk(self.program, self.steps, self.tensors, rows)


def load_torch(
    data: bytes,
    *,
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, Levels] | None = None,
) -> TorchModel:
    """Load a program saved by `torch.export.save`, from one float matrix (rows, columns).

    `extra_files={"explaind.json": ...}` of that call may hold `link` (identity, softmax, logit or
    log: from what the program gives to probabilities or the value), `columns` and `classes`;
    without it the program gives a value, or probabilities. ModelLoadError for files that are
    broken, unsafe or of another shape, and where PyTorch is not installed.
    """
    program = read_program(data)
    torch = _torch()
    steps = tuple((_operator(torch, node), node) for node in program.nodes)
    tensors = {name: torch.from_numpy(array) for name, array in program.tensors.items()}

    def probed(row: FloatArray) -> FloatArray:
        return run(lambda rows: walk(program, steps, tensors, rows), rows_of(program, row))

    task, space, link, n_classes = _units(program, first_answer(probed, program.width))
    columns = _columns(program, names, categories or {})
    return TorchModel(
        program=program,
        steps=steps,
        tensors=tensors,
        columns=replace(columns, accepts_missing=accepts_missing([True] * program.width, probed)),
        task=task,
        n_classes=n_classes,
        output_space=space,
        link=link,
        classes=None if task == "regression" else program.declared.classes,
    )


def dump_torch(model: object) -> bytes:
    """An exported program as PyTorch saves it; ModelLoadError for anything else."""
    import torch

    if not isinstance(model, torch.export.ExportedProgram):
        raise ModelLoadError(
            f"{type(model).__qualname__} is no exported program: make one with "
            "torch.export.export(model.eval(), (rows,))"
        )
    buffer = io.BytesIO()
    torch.export.save(model, buffer)
    return buffer.getvalue()


def run(program: Callable[[Tensor], Tensor], rows: Tensor) -> FloatArray:
    """(N, K) of a program, float64; ValueError when it cannot run on these rows."""
    import torch

    try:
        with torch.inference_mode():
            given = program(rows)
    except (RuntimeError, LookupError, TypeError) as error:
        raise ValueError(f"PyTorch: {_first_line(error)}") from error
    numbers: NDArray[Any] = by_row(given, len(rows)).numpy()
    return numbers.astype(np.float64)


def by_row(given: Tensor, n_rows: int) -> Tensor:
    """(N, K) of what a program gives for so many rows; ValueError for another shape."""
    check_rows(given.shape, n_rows, giver="the program")
    if given.ndim > 2:
        raise ValueError(f"the program gives {tuple(given.shape)} for {n_rows} rows")
    return given.reshape(n_rows, -1)


def walk(
    program: Program, steps: tuple[Step, ...], tensors: Mapping[str, Tensor], rows: Tensor
) -> Tensor:
    """What the program gives for rows, (N, width)."""
    values: dict[str, Any] = {**tensors, program.rows: rows}
    for call, node in steps:
        arguments = [_resolved(argument, values) for argument in node.arguments]
        keywords = {name: _resolved(value, values) for name, value in node.keywords.items()}
        result = call(*arguments, **keywords)
        many = result if isinstance(result, tuple | list) else (result,)
        values.update(zip(node.results, many, strict=False))
    return values[program.output]


def rows_of(program: Program, X: FloatArray) -> Tensor:
    """The rows as the program's tensor."""
    import torch

    return torch.from_numpy(np.array(X, dtype=np.float32 if program.is_float32 else np.float64))


def _resolved(argument: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, list):
        return [_resolved(member, values) for member in argument]
    if isinstance(argument, Processor):
        return "cpu"
    if isinstance(argument, ScalarType):
        import torch

        # Through numpy, whose dtypes PyTorch translates.
        return torch.from_numpy(np.zeros(0, DTYPES[argument.code])).dtype
    return argument


def _torch() -> Any:  # noqa: ANN401  # the module
    try:
        import torch
    except ImportError as error:
        raise ModelLoadError(INSTALL) from error
    torch.set_num_threads(1)
    return torch


def _operator(torch: Any, node: Node) -> Callable[..., Any]:  # noqa: ANN401
    if not node.overload and node.operator in PYTHON_OPERATORS:
        found: Callable[..., Any] = getattr(operator, node.operator)
        return found
    try:
        call: Callable[..., Any] = getattr(getattr(torch.ops.aten, node.operator), node.overload)
    except AttributeError as error:
        raise ModelLoadError(f"PyTorch has no aten.{node.operator}.{node.overload}") from error
    return call


def _units(program: Program, first: FloatArray) -> tuple[Task, OutputSpace, Link, int]:
    """Task, output space, link and number of classes of a program that gives (1, K)."""
    link, width = program.declared.link, first.shape[1]
    if link == "logit" and width == 1:
        return "binary", "log_odds", "logit", 2
    if link == "softmax" and width >= 2:
        return (
            ("binary", "log_odds", "logit", 2)
            if width == 2
            else ("multiclass", "margin", "softmax", width)
        )
    if link == "log" and width == 1:
        return "regression", "log", "log", 1
    if link != "identity":
        raise ModelLoadError(f"explaind.json: link {link!r} does not fit {width} outputs")
    if width == 1:
        return "regression", "raw", "identity", 1
    check_shares(first)
    return ("binary" if width == 2 else "multiclass"), "probability", "identity", width


def _columns(
    program: Program, names: tuple[str, ...] | None, categories: Mapping[str, Levels]
) -> InputColumns:
    own, width = program.declared.columns, program.width
    stored = StoredColumns(
        names=chosen_names(own, given=names, default=tuple(f"x{index}" for index in range(width))),
        levels=(None,) * width,
        is_category=(False,) * width,
        why_no_levels="the program does not say which codes it knows",
        names_are_given=own is None and names is not None,
    )
    return input_columns(stored, categories=categories, unknown="refuse")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
