"""KServe V1 and the Open Inference Protocol as their clients speak them."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from servers import JSON, Client, Reply

Instance = Mapping[str, Any]

BY_KIND = {"FP64": "<f8", "INT64": "<i8", "BOOL": "|b1"}


def post(client: Client, path: str, document: object, **headers: str) -> Reply:
    return client.request("POST", path, json.dumps(document).encode(), {**JSON, **headers})


def metadata(client: Client, model: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v2/models/{model}").json()
    return found


def columns(client: Client, model: str) -> dict[str, str]:
    """Column to datatype, in order."""
    return {tensor["name"]: tensor["datatype"] for tensor in metadata(client, model)["inputs"]}


def tensor(name: str, datatype: str, data: list[Any], shape: Sequence[int] = ()) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(shape) or [len(data)],
        "datatype": datatype,
        "data": data,
    }


def by_column(rows: Sequence[Instance], datatypes: Mapping[str, str]) -> list[dict[str, Any]]:
    """A tensor a column."""
    return [
        tensor(name, datatype, [row[name] for row in rows]) for name, datatype in datatypes.items()
    ]


def as_matrix(rows: Sequence[Instance], names: Sequence[str]) -> list[dict[str, Any]]:
    """One tensor over all columns, flat in row-major order."""
    cells = [row[name] for row in rows for name in names]
    return [tensor("input-0", "FP64", cells, (len(rows), len(names)))]


def as_bytes(tensors: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """The same tensors by the binary extension, missing numbers as NaN; texts must be there."""
    heads, parts = [], []
    for found in tensors:
        raw = _raw(found["datatype"], found["data"])
        head = {name: value for name, value in found.items() if name != "data"}
        heads.append({**head, "parameters": {"binary_data_size": len(raw)}})
        parts.append(raw)
    return heads, b"".join(parts)


def _raw(datatype: str, data: list[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [text.encode() for text in data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    cells = [np.nan if cell is None else cell for cell in data]
    return np.array(cells, BY_KIND[datatype]).tobytes()


def post_bytes(
    client: Client, path: str, document: Mapping[str, Any], binary: bytes, **headers: str
) -> Reply:
    """Without a media type, as tritonclient sends it."""
    head = json.dumps(document).encode()
    sent = {"Inference-Header-Content-Length": str(len(head)), **headers}
    return client.request("POST", path, head + binary, sent)


def outputs_of(reply: Reply) -> dict[str, list[Any]]:
    """Output tensors as nested lists, whether they came as JSON or as bytes."""
    assert reply.status == 200, reply.body
    length = int(reply.headers.get("inference-header-content-length", len(reply.body)))
    document, rest = json.loads(reply.body[:length]), reply.body[length:]
    found = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        cells = output.get("data")
        if size is not None:
            cells, rest = _cells(output["datatype"], rest[:size]), rest[size:]
        assert len(cells) == np.prod(output["shape"])
        array = np.array(cells, object).reshape(output["shape"])
        found[output["name"]] = array.tolist()
    assert not rest
    return found


def _cells(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        cells: list[Any] = np.frombuffer(raw, BY_KIND[datatype]).tolist()
        return cells
    texts = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return texts
