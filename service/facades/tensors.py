"""Input tensors of the Open Inference Protocol to lists of cells, from JSON or from bytes."""

import math
import struct
from collections.abc import Iterator, Sequence
from sys import float_info
from typing import NoReturn

import numpy as np

from schemas import Level, NotStrictJsonError, Violation, json_pointer
from schemas.inference import Datatype, InputTensor
from service.errors import NotJsonError
from service.facades.rows import refusal

BINARY_SIZE = "binary_data_size"
LENGTH = struct.Struct("<I")
DTYPES: dict[Datatype, str] = {
    "BOOL": "|b1",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""The protocol's fixed sizes, little endian; BYTES has none."""

Cells = list[Level | None]


def cells_of(index: int, tensor: InputTensor, raw: bytes | None) -> Cells:
    """A tensor's elements in row-major order, as many as its shape says; missing is None.

    raw: its bytes, if they came after the JSON document. In these a NaN is missing.
    """
    here = json_pointer("inputs", index)
    n_cells = math.prod(tensor.shape)
    if raw is not None:
        return _from_bytes(raw, tensor.datatype, n_cells, here)
    if tensor.data is None:
        _refuse(here, "has neither data nor binary_data_size", "missing")
    cells = _flattened(tensor.data, tensor.shape, here)
    if len(cells) != n_cells:
        _refuse(here + "/data", "must have as many elements as the shape says", "wrong_length")
    for place, cell in enumerate(cells):
        if not _fits(cell, tensor.datatype):
            _refuse(f"{here}/data/{place}", "is not of the tensor's datatype", "wrong_datatype")
    return cells


def raw_parts(tensors: Sequence[InputTensor], binary: bytes) -> Iterator[bytes | None]:
    """Each tensor's bytes of those after the JSON document, None where it holds its data."""
    start = 0
    for index, tensor in enumerate(tensors):
        size = tensor.parameters.get(BINARY_SIZE)
        if size is None:
            yield None
            continue
        here = json_pointer("inputs", index, "parameters", BINARY_SIZE)
        if type(size) is not int or not 0 <= size <= len(binary) - start:
            _refuse(here, "must be a number of bytes that follow the JSON document", "wrong_length")
        if tensor.data is not None:
            _refuse(here, "stands beside data", "unknown_member")
        yield binary[start : start + size]
        start += size
    if start != len(binary):
        _refuse("/inputs", "name fewer bytes than follow the JSON document", "wrong_length")


def _flattened(data: list[object], shape: Sequence[int], here: str) -> Cells:
    """The elements of data that is flat, or nested as the shape is."""
    if not any(isinstance(part, list) for part in data):
        return data  # type: ignore[return-value]  # what is no cell is refused one by one
    rows = [part for part in data if isinstance(part, list)]
    is_nested = len(shape) == 2 and len(rows) == len(data) == shape[0]
    if not is_nested or any(len(row) != shape[1] for row in rows):
        _refuse(here + "/data", "must be flat, or nested as the shape is", "wrong_length")
    return [cell for row in rows for cell in row]


def _fits(cell: object, datatype: Datatype) -> bool:
    if cell is None:
        return True
    if datatype == "BYTES":
        return isinstance(cell, str)
    if datatype == "BOOL":
        return isinstance(cell, bool)
    if datatype.startswith("FP"):
        return type(cell) in {int, float} and abs(cell) <= float_info.max  # type: ignore[arg-type]
    if type(cell) is not int:
        return False
    limits = np.iinfo(DTYPES[datatype])
    return int(limits.min) <= cell <= int(limits.max)


def _from_bytes(raw: bytes, datatype: Datatype, n_cells: int, here: str) -> Cells:
    if datatype == "BYTES":
        return _texts(raw, n_cells, here)
    dtype = np.dtype(DTYPES[datatype])
    if len(raw) != n_cells * dtype.itemsize:
        _refuse(here, "must have as many bytes as shape and datatype say", "wrong_length")
    if datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
        _refuse(here, "must hold 0 and 1 only", "wrong_datatype")
    array = np.frombuffer(raw, dtype)
    if datatype.startswith("FP") and np.isinf(array).any():
        _refuse(here, "holds an infinity", "out_of_range")
    cells: Cells = array.tolist()
    return [None if cell != cell else cell for cell in cells]  # noqa: PLR0124 (NaN alone)


def _texts(raw: bytes, n_cells: int, here: str) -> Cells:
    """Texts that each stand behind their length in bytes."""
    found: Cells = []
    start = 0
    while start < len(raw) and len(found) < n_cells:
        if len(raw) - start < LENGTH.size:
            break
        (size,) = LENGTH.unpack_from(raw, start)
        start += LENGTH.size
        found.append(_text(raw[start : start + size]))
        start += size
    if start != len(raw) or len(found) != n_cells:
        _refuse(here, "must have as many texts as the shape says", "wrong_length")
    return found


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    raise NotJsonError(str(NotStrictJsonError("not UTF-8")))


def _refuse(pointer: str, detail: str, code: str) -> NoReturn:
    raise refusal(Violation(pointer, detail, code))
