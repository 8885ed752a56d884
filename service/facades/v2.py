"""The Open Inference Protocol V2: tensors in, as the body of POST /predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import NoReturn

from schemas import (
    Column,
    InvalidContentError,
    Level,
    ModelSchema,
    NotStrictJsonError,
    Violation,
    json_pointer,
    read_document,
)
from schemas.inference import InferRequest, InputTensor, RequestedOutput
from service.errors import InvalidRequestError, NotJsonError
from service.facades.rows import Places, adapted, body_of, refusal
from service.facades.tensors import Cells, cells_of, raw_parts

SUBJECTS = "subjects"
EXPLAIN = "explain"
OF_EXPLANATION = (
    *("shap_values", "base_values", "explained_outputs", "additivity_error", "standard_errors"),
    *("feature_names", "output_names"),
)
OF_CLASSES = ("label", "probabilities", "classes")
OF_VALUES = ("value",)
OF_BOTH = ("decision", "warnings")
BINARY, ALL_BINARY = "binary_data", "binary_data_output"


@dataclass(frozen=True, slots=True)
class Infer:
    """A request to infer, translated. body: of POST /predict; request_id: None where it has none.

    outputs: the names of tensors to answer with, each whether as bytes; None for all.
    """

    body: bytes
    places: Places
    request_id: str | None
    explain: bool
    top: int | None
    outputs: Mapping[str, bool] | None
    is_binary: bool
    """Tensors nobody named are answered as bytes."""


def read_infer(
    document: bytes, binary: bytes, schema: ModelSchema, *, is_classifier: bool, max_instances: int
) -> Infer:
    """Translate a request; binary: what follows the JSON document.

    Raises NotJsonError, and InvalidRequestError with pointers into the document.
    """
    try:
        request = read_document(InferRequest, document)
    except NotStrictJsonError as error:
        raise NotJsonError(str(error)) from None
    except InvalidContentError as error:
        raise InvalidRequestError("see errors", errors=error.errors) from None
    outputs = _outputs(request.outputs, OF_CLASSES if is_classifier else OF_VALUES)
    explain = _flag(request, EXPLAIN) or any(name in OF_EXPLANATION for name in outputs or ())
    body, places = _read_inputs(request.inputs, binary, schema, max_instances)
    return Infer(
        body=body,
        places=places,
        request_id=request.id or None,
        explain=explain,
        top=_top(request),
        outputs=outputs,
        is_binary=_flag(request, ALL_BINARY),
    )


def _flag(request: InferRequest, name: str) -> bool:
    value = request.parameters.get(name, False)
    if not isinstance(value, bool):
        _refuse(json_pointer("parameters", name), "must be true or false", "bad_parameter")
    return value


def _top(request: InferRequest) -> int | None:
    top = request.parameters.get("top")
    if top is not None and type(top) is not int:
        _refuse("/parameters/top", "must be a whole number", "bad_parameter")
    return top


def _outputs(
    requested: Sequence[RequestedOutput], predictions: Sequence[str]
) -> Mapping[str, bool] | None:
    if not requested:
        return None
    known = {EXPLAIN, *OF_EXPLANATION, *OF_BOTH, *predictions}
    named: dict[str, bool] = {}
    for index, output in enumerate(requested):
        if output.name not in known:
            _refuse(json_pointer("outputs", index, "name"), "is no output", "unknown_output")
        is_binary = output.parameters.get(BINARY, False)
        if not isinstance(is_binary, bool):
            here = json_pointer("outputs", index, "parameters", BINARY)
            _refuse(here, "must be true or false", "bad_parameter")
        group = OF_EXPLANATION if output.name == EXPLAIN else (output.name,)
        named |= dict.fromkeys(group, is_binary)
    return named


@dataclass(frozen=True, slots=True)
class _Slice:
    """Where a column's cells lie: in which tensor, from which cell on, how far apart."""

    tensor: int
    offset: int = 0
    width: int = 1


def _read_inputs(
    inputs: Sequence[InputTensor], binary: bytes, schema: ModelSchema, max_instances: int
) -> tuple[bytes, Places]:
    slices = _slices(inputs, schema)
    n_rows = _n_rows(inputs, max_instances)
    parts = zip(range(len(inputs)), inputs, raw_parts(inputs, binary), strict=True)
    cells = list(starmap(cells_of, parts))
    table = {
        column.name: _column(cells[at.tensor], at, column)
        for column in schema.columns
        if (at := slices.get(column.name)) is not None
    }
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)] or [
        {}
    ] * n_rows
    document: dict[str, object] = {"instances": rows}
    if (at := slices.get(SUBJECTS)) is not None and SUBJECTS not in schema.names:
        document[SUBJECTS] = cells[at.tensor]
    return body_of(document, "/inputs"), _places(slices)


def _column(cells: Cells, at: _Slice, column: Column) -> list[Level | None]:
    return [adapted(cell, column) for cell in cells[at.offset :: at.width]]


def _places(slices: Mapping[str, _Slice]) -> Places:
    def cell(row: int, column: str) -> str | None:
        at = slices.get(column)
        if at is None:
            return None
        return json_pointer("inputs", at.tensor, "data", row * at.width + at.offset)

    named = slices.get(SUBJECTS)
    subjects = "/inputs" if named is None else json_pointer("inputs", named.tensor, "data")
    return Places(cell, rows="/inputs", subjects=subjects)


def _n_rows(inputs: Sequence[InputTensor], max_instances: int) -> int:
    """Of all tensors alike; checked before any row is made."""
    n_rows = inputs[0].shape[0]
    for index, tensor in enumerate(inputs):
        if tensor.shape[0] != n_rows:
            detail = "must have as many rows as the first tensor"
            _refuse(json_pointer("inputs", index, "shape"), detail, "wrong_shape")
    if not 1 <= n_rows <= max_instances:
        detail = f"must have 1 to {max_instances} rows"
        _refuse("/inputs/0/shape", detail, "too_many_instances" if n_rows else "no_instances")
    return n_rows


def _slices(inputs: Sequence[InputTensor], schema: ModelSchema) -> Mapping[str, _Slice]:
    """Each column's cells: of the tensor of its name or, where one tensor of another name holds all
    columns, of this.
    """
    names = schema.names
    columns = [tensor for tensor in inputs if tensor.name != SUBJECTS or SUBJECTS in names]
    found: dict[str, _Slice] = {}
    for index, tensor in enumerate(inputs):
        here = json_pointer("inputs", index)
        if tensor.name in found:
            _refuse(here + "/name", "is given twice", "duplicate_name")
        if _is_matrix(tensor, columns, names):
            _check_width(tensor, len(names), here)
            found |= {name: _Slice(index, place, len(names)) for place, name in enumerate(names)}
            continue
        if tensor.name not in {*names, SUBJECTS}:
            _refuse(here + "/name", "is no column", "unknown_column")
        _check_width(tensor, 1, here)
        found[tensor.name] = _Slice(index)
    return found


def _is_matrix(tensor: InputTensor, columns: Sequence[InputTensor], names: Sequence[str]) -> bool:
    """The only tensor beside the subjects, two-dimensional, and not named as a column."""
    return (
        len(columns) == 1
        and columns[0] is tensor
        and len(tensor.shape) == 2
        and tensor.name not in names
    )


def _check_width(tensor: InputTensor, n_columns: int, here: str) -> None:
    if tensor.shape[1:] not in ([n_columns], [] if n_columns == 1 else [n_columns]):
        shape = "[N] or [N, 1]" if n_columns == 1 else f"[N, {n_columns}]"
        _refuse(here + "/shape", f"must be {shape}", "wrong_shape")


def _refuse(pointer: str, detail: str, code: str) -> NoReturn:
    raise refusal(Violation(pointer, detail, code))
