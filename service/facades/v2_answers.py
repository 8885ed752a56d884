"""The Open Inference Protocol V2: an answer of POST /predict as output tensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import nan
from typing import Any

import numpy as np
import orjson

from schemas.inference import Datatype
from service.facades.rows import Places, moved_warnings
from service.facades.tensors import BINARY_SIZE, DTYPES, LENGTH
from service.facades.v2 import Infer

LABEL_TYPES: Mapping[type, Datatype] = {str: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}
ARRAYS = {
    "shap_values": "values",
    "base_values": "base_values",
    "explained_outputs": "outputs",
    "additivity_error": "additivity_error",
    "standard_errors": "standard_errors",
}
"""Output tensor to what POST /predict calls the same numbers."""

FACTS = (
    *("status", "reason", "lane", "method", "engine", "exact", "output_space", "link"),
    *("background_digest", "caveat"),
)
"""Said of an explanation as a whole: parameters, with `explain_` before them."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An output before it is written; cells in row-major order, None where withheld or erased."""

    name: str
    datatype: Datatype
    shape: Sequence[int]
    cells: Sequence[Any]

    def as_bytes(self) -> bytes:
        """The binary form: what is withheld is NaN, or an empty text."""
        if self.datatype == "BYTES":
            texts = [b"" if cell is None else cell.encode() for cell in self.cells]
            return b"".join(LENGTH.pack(len(text)) + text for text in texts)
        if self.datatype == "FP64":
            cells = [nan if cell is None else cell for cell in self.cells]
            return np.array(cells, DTYPES["FP64"]).tobytes()
        return np.array(self.cells, DTYPES[self.datatype]).tobytes()


@dataclass(slots=True, eq=False)
class _Written:
    """The answer's `outputs`, and the bytes that follow the document."""

    outputs: list[dict[str, object]] = field(default_factory=list)
    binary: list[bytes] = field(default_factory=list)

    def add(self, tensor: Tensor, *, is_binary: bool) -> None:
        head = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        # Only numbers and texts have a sign for what is withheld.
        if is_binary and (tensor.datatype in {"BYTES", "FP64"} or None not in tensor.cells):
            raw = tensor.as_bytes()
            self.outputs.append({**head, "parameters": {BINARY_SIZE: len(raw)}})
            self.binary.append(raw)
        else:
            self.outputs.append({**head, "data": tensor.cells})


def infer_answer(body: bytes, asked: Infer) -> tuple[bytes, int | None]:
    """The answer, and the length of its JSON document where bytes of tensors follow it."""
    answer = orjson.loads(body)
    written = _Written()
    for tensor in _tensors(answer, asked.places):
        if asked.outputs is None:
            written.add(tensor, is_binary=asked.is_binary)
        elif tensor.name in asked.outputs:
            written.add(tensor, is_binary=asked.outputs[tensor.name])
    document = orjson.dumps(
        {
            "model_name": answer["model"]["name"],
            "model_version": str(answer["model"]["version"]),
            "id": answer["request_id"],
            "parameters": _facts(answer),
            "outputs": written.outputs,
        }
    )
    if not written.binary:
        return document, None
    return b"".join([document, *written.binary]), len(document)


def _facts(answer: Mapping[str, Any]) -> dict[str, object]:
    facts: dict[str, object] = {"model_digest": answer["model"]["digest"]}
    explanation = answer["explanation"]
    if explanation is None:
        return facts
    said = {f"explain_{name}": explanation[name] for name in FACTS}
    said["explain_location"] = explanation["links"]["self"]
    return facts | {name: value for name, value in said.items() if value is not None}


def _tensors(answer: Mapping[str, Any], places: Places) -> Iterator[Tensor]:
    yield from _predictions(answer["predictions"])
    warnings = moved_warnings(answer["warnings"], places)
    if warnings:
        texts = [f"{found['pointer']} {found['code']}" for found in warnings]
        yield Tensor("warnings", "BYTES", [len(texts)], texts)
    if answer["explanation"] is not None:
        yield from _explanation(answer["explanation"])


def _predictions(predictions: Sequence[Mapping[str, Any]]) -> Iterator[Tensor]:
    n_rows = [len(predictions)]
    if "label" in predictions[0]:
        labels = [prediction["label"] for prediction in predictions]
        yield Tensor("label", LABEL_TYPES[type(labels[0])], n_rows, labels)
        probabilities = [prediction["probabilities"] for prediction in predictions]
        if None not in probabilities:
            classes = list(probabilities[0])
            cells = list(chain.from_iterable(row.values() for row in probabilities))
            yield Tensor("probabilities", "FP64", [*n_rows, len(classes)], cells)
            yield Tensor("classes", "BYTES", [len(classes)], classes)
    else:
        values = [prediction["value"] for prediction in predictions]
        yield Tensor("value", "FP64", n_rows, values)
    if "decision" in predictions[0]:
        decisions = [prediction["decision"] for prediction in predictions]
        yield Tensor("decision", "BYTES", n_rows, decisions)


def _explanation(explanation: Mapping[str, Any]) -> Iterator[Tensor]:
    """Nothing but names until it is complete, and for callers who may not see every column."""
    for name, source in ARRAYS.items():
        if explanation[source] is not None:
            array = np.array(explanation[source], np.float64)
            yield Tensor(name, "FP64", array.shape, array.ravel().tolist())
    for name in ("feature_names", "output_names"):
        names = explanation[name]
        yield Tensor(name, "BYTES", [len(names)], names)
