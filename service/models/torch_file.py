"""PyTorch programs from `torch.export.save`, read without `torch.export.load`: that one unpickles
the file's sample inputs, evaluates its shape expressions and looks up whatever operator it names.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from explainers.base import Level
from service.models.errors import ModelLoadError
from service.models.torch_operators import OPERATORS, PYTHON_OPERATORS, SKIPPED

SCHEMA = 8
DTYPES: Mapping[int, str] = {1: "u1", 4: "<i4", 5: "<i8", 7: "<f4", 8: "<f8", 12: "?"}
"""torch's ScalarType numbers, as far as a small model's tensors go."""

UNREAD: Mapping[int, str] = {2: "int8", 3: "int16", 6: "float16", 13: "bfloat16"}
"""Those that a person may meet all the same."""

REALS = (7, 8)
META = "extra/explaind.json"
PLAIN = frozenset({"as_int", "as_bool", "as_string", "as_ints", "as_bools"})
LAID_OUT = frozenset({"as_layout", "as_memory_format"})
"""How a tensor lies in memory, which changes no number."""

TO_CPU = "export model.cpu(), with rows of the CPU"

TorchLink = Literal["identity", "softmax", "logit", "log"]


@dataclass(frozen=True, slots=True)
class Ref:
    """The value that a node or input of this name has given."""

    name: str


@dataclass(frozen=True, slots=True)
class ScalarType:
    """A dtype, by torch's number."""

    code: int


@dataclass(frozen=True, slots=True)
class Processor:
    """The device of an argument: there is but one here."""


@dataclass(frozen=True, slots=True)
class Node:
    """One call: operator and overload, arguments by position and by name, names of its results."""

    operator: str
    overload: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """What `extra_files={"explaind.json": ...}` says of the program."""

    link: TorchLink = "identity"
    columns: tuple[str, ...] | None = None
    classes: tuple[Level, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """The graph from one matrix of rows, (N, width), to one output."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, NDArray[Any]]
    rows: str
    width: int
    is_float32: bool
    one_row_only: bool
    output: str
    declared: Declared


def read_program(data: bytes) -> Program:
    """Read a `.pt2` file; nothing in it is unpickled, evaluated or imported.

    ModelLoadError for broken files and for parts that a model over rows of columns does not need.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive)
    except ModelLoadError:
        raise
    except (
        AttributeError,
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise ModelLoadError(f"broken PyTorch program: {error!r}") from error


def _read(archive: zipfile.ZipFile) -> Program:
    root = archive.namelist()[0].partition("/")[0]
    document = json.loads(archive.read(f"{root}/models/model.json"))
    if document["schema_version"]["major"] != SCHEMA:
        raise ModelLoadError(f"schema {document['schema_version']}: only {SCHEMA} is read")
    module = document["graph_module"]
    graph, signature = module["graph"], module["signature"]
    stored, rows = _inputs(signature["input_specs"])
    (output,) = [spec["user_output"]["arg"]["as_tensor"]["name"] for spec in _outputs(signature)]
    matrix = graph["tensor_values"][rows]
    sizes = matrix["sizes"]
    if len(sizes) != 2 or "as_int" not in sizes[1] or matrix["dtype"] not in REALS:
        raise ModelLoadError("the program's input is no (rows, columns) matrix of floats")
    if "as_int" in sizes[0] and sizes[0]["as_int"] != 1:
        raise ModelLoadError(
            f"the program takes {sizes[0]['as_int']} rows at a time; export it with "
            "dynamic_shapes=({0: torch.export.Dim('rows')},)"
        )
    width = sizes[1]["as_int"]
    return Program(
        nodes=tuple(node for node in map(_node, graph["nodes"]) if node is not None),
        tensors=_tensors(archive, root, stored),
        rows=rows,
        width=width,
        is_float32=matrix["dtype"] == 7,
        one_row_only="as_int" in sizes[0],
        output=output,
        declared=_declared(archive, root, width),
    )


def _inputs(specs: list[dict[str, Any]]) -> tuple[dict[str, tuple[str, str]], str]:
    """Graph inputs with a stored tensor, by folder and name there, and the one of the rows."""
    stored, rows = {}, []
    for spec in specs:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            rows.append(content["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer"):
            is_weight = kind == "parameter" or content["persistent"]
            folder = "weights" if is_weight else "constants"
            stored[content["arg"]["name"]] = (folder, content[f"{kind}_name"])
        elif kind == "tensor_constant":
            stored[content["arg"]["name"]] = ("constants", content["tensor_constant_name"])
        else:
            raise ModelLoadError(f"the program has an input of kind {kind}")
    if len(rows) != 1:
        raise ModelLoadError(f"the program has {len(rows)} inputs; it must take one matrix")
    return stored, rows[0]


def _outputs(signature: dict[str, Any]) -> list[dict[str, Any]]:
    specs: list[dict[str, Any]] = signature["output_specs"]
    if len(specs) != 1 or "user_output" not in specs[0]:
        kinds = ", ".join(kind for spec in specs for kind in spec)
        raise ModelLoadError(f"the program's outputs are {kinds}; export model.eval() with one")
    return specs


def _node(document: dict[str, Any]) -> Node | None:
    operator, overload = _target(document["target"])
    if operator in SKIPPED:
        return None
    arguments, keywords = [], {}
    for argument in document["inputs"]:
        ((kind, content),) = argument["arg"].items()
        is_named = argument["kind"] == 2
        if kind in LAID_OUT and is_named:
            continue
        value = _value(kind, content)
        if is_named:
            keywords[argument["name"]] = value
        else:
            arguments.append(value)
    if operator == "dropout" and arguments[-1] is not False:
        raise ModelLoadError("the program drops values at random; export model.eval()")
    if operator == "scaled_dot_product_attention" and _dropout(arguments, keywords) != 0:
        raise ModelLoadError("the program's attention draws at random; export model.eval()")
    if operator == "batch_norm" and arguments[5] is not False:
        raise ModelLoadError("the program mixes the rows of a batch; export model.eval()")
    results = tuple(name for output in document["outputs"] for name in _names(output))
    return Node(operator, overload, tuple(arguments), keywords, results)


def _dropout(arguments: list[Any], keywords: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Attention's dropout_p, by position or by name."""
    return arguments[4] if len(arguments) > 4 else keywords.get("dropout_p", 0)


def _target(target: str) -> tuple[str, str]:
    parts = target.split(".")
    if parts[:3] == ["torch", "ops", "aten"] and len(parts) == 5 and parts[3] in OPERATORS:
        return parts[3], parts[4]
    if parts[0] == "_operator" and len(parts) == 2 and parts[1] in PYTHON_OPERATORS:
        return parts[1], ""
    raise ModelLoadError(f"operator {target!r} is not among those that are run here")


def _value(kind: str, content: Any) -> Any:  # noqa: ANN401
    if kind in PLAIN:
        return content
    if kind in ("as_float", "as_floats"):
        return float(content) if kind == "as_float" else [float(number) for number in content]
    if kind in ("as_tensors", "as_sym_ints", "as_optional_tensors"):
        return [_member(member) for member in content]
    if kind in ("as_tensor", "as_sym_int", "as_optional_tensor"):
        return _member(content)
    if kind == "as_scalar_type":
        _numpy_kind(content)
        return ScalarType(content)
    return _placed(kind, content)


def _placed(kind: str, content: Any) -> Processor | None:  # noqa: ANN401
    """Where a tensor is to be, or nothing at all."""
    if kind == "as_device":
        if content["type"] != "cpu":
            raise ModelLoadError(f"the program places tensors on {content['type']}: {TO_CPU}")
        return Processor()
    if kind == "as_none" or kind in LAID_OUT:
        return None
    raise ModelLoadError(f"an argument of kind {kind} is not known here")


def _numpy_kind(code: int) -> str:
    if code not in DTYPES:
        name = UNREAD.get(code, f"dtype {code}")
        raise ModelLoadError(
            f"the program has {name} numbers, which are not read here: export it in float32 or "
            "float64, as model.float() is"
        )
    return DTYPES[code]


def _member(content: dict[str, Any]) -> Any:  # noqa: ANN401
    if "name" in content or "as_name" in content:
        return Ref(content.get("name") or content["as_name"])
    ((kind, value),) = content.items()
    return _value(kind, value)


def _names(output: dict[str, Any]) -> list[str]:
    ((kind, content),) = output.items()
    if kind == "as_tensor":
        return [content["name"]]
    if kind == "as_tensors":
        return [member["name"] for member in content]
    if kind == "as_sym_int":
        return [content["as_name"]]
    raise ModelLoadError(f"a result of kind {kind} is not known here")


def _tensors(
    archive: zipfile.ZipFile, root: str, stored: Mapping[str, tuple[str, str]]
) -> dict[str, NDArray[Any]]:
    configs = {
        folder: json.loads(archive.read(f"{root}/data/{folder}/model_{folder}_config.json"))[
            "config"
        ]
        for folder in ("weights", "constants")
    }
    return {
        name: _tensor(archive, f"{root}/data/{folder}", configs[folder][own])
        for name, (folder, own) in stored.items()
    }


def _tensor(archive: zipfile.ZipFile, folder: str, entry: dict[str, Any]) -> NDArray[Any]:
    if entry["use_pickle"]:
        raise ModelLoadError("the program holds a pickled tensor, which runs code when read")
    meta = entry["tensor_meta"]
    kind = np.dtype(_numpy_kind(meta["dtype"]))
    sizes = [size["as_int"] for size in meta["sizes"]]
    strides = [stride["as_int"] for stride in meta["strides"]]
    first = meta["storage_offset"]["as_int"]
    numbers = np.frombuffer(archive.read(f"{folder}/{entry['path_name']}"), kind)[first:]
    reach = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if min([*sizes, *strides, first], default=0) < 0 or math.prod(sizes) == 0:
        raise ModelLoadError("a stored tensor is empty, or laid out backwards")
    if reach >= len(numbers):
        raise ModelLoadError("a stored tensor reaches beyond its file")
    steps = [stride * kind.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers, sizes, steps, writeable=False).copy()


def _declared(archive: zipfile.ZipFile, root: str, width: int) -> Declared:
    if f"{root}/{META}" not in archive.namelist():
        return Declared()
    document = json.loads(archive.read(f"{root}/{META}"))
    link = document.get("link", "identity")
    columns, classes = document.get("columns"), document.get("classes")
    if link not in get_args(TorchLink):
        raise ModelLoadError(f"explaind.json: link {link!r} is none of {get_args(TorchLink)}")
    if columns is not None and (
        len(columns) != width or not all(isinstance(c, str) for c in columns)
    ):
        raise ModelLoadError(f"explaind.json: columns must be {width} names")
    return Declared(
        link,
        None if columns is None else tuple(columns),
        None if classes is None else tuple(classes),
    )
