"""What an ONNX file says of itself, read before the runtime sees it."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from explainers.base import Level
from service.models.errors import ModelLoadError
from service.models.protobuf import Field, fields, integers, text, within

MOST_BYTES = 512 << 20
DEEPEST = 16
"""Graphs within graphs, as branches have them."""

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)
ENDLESS = frozenset({"Loop"})
CLASS_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
KEPT = frozenset({*CLASS_LABELS, "value"})
INT32, INT64, STRING, BOOL = 6, 7, 8, 9


@dataclass(slots=True)
class Node:
    """One operator of a graph: its class labels, and the value of a constant."""

    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    kept: dict[str, tuple[Level, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[Level, ...]:
        """The classes it lists, if it does."""
        return next((self.kept[name] for name in CLASS_LABELS if name in self.kept), ())


@dataclass(slots=True)
class Graph:
    """A graph's nodes, and those of its stored tensors that are texts, integers or booleans."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, tuple[Level, ...]] = field(default_factory=dict)

    def classes(self, outputs: list[str], count: int) -> tuple[Level, ...] | None:
        """The `count` labels of the operator nearest to the outputs that has as many, if any."""
        makers = {name: node for node in self.nodes for name in node.outputs}
        waiting, seen = deque(outputs), set(outputs)
        while waiting:
            node = makers.get(waiting.popleft())
            if node is None:
                continue
            stored = self._labels(node)
            if len(stored) == count and len(set(stored)) == count:
                return stored
            for name in node.inputs:
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return None

    def keys(self, output: str) -> tuple[Level, ...]:
        """What the ZipMap that gives this output calls its columns, in their order."""
        makers = [node for node in self.nodes if output in node.outputs]
        return makers[0].labels if makers and makers[0].operator == "ZipMap" else ()

    def _labels(self, node: Node) -> tuple[Level, ...]:
        if node.operator == "ArrayFeatureExtractor" and node.inputs:
            # The label is picked by position out of a stored list.
            return self.tensors.get(node.inputs[0], ())
        return node.labels


def read_graph(data: bytes) -> Graph:
    """The file's main graph, after every graph in it was looked through.

    ModelLoadError for files that are too large or broken, that name other files, and for operators
    that are drawn at random, may never end, or are no part of the standard.
    """
    if len(data) > MOST_BYTES:
        raise ModelLoadError(f"{len(data)} bytes: ONNX files of at most {MOST_BYTES} are read")
    main = Graph()
    try:
        for number, content in fields(memoryview(data)):
            if number == 7:
                _read_graph(within(content), main, depth=0)
            elif number == 25:
                _read_function(within(content))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"broken ONNX file: {error}") from error
    if not main.nodes:
        raise ModelLoadError("not an ONNX file, or one without a graph")
    return main


def _read_graph(message: memoryview, graph: Graph, *, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"graphs within graphs deeper than {DEEPEST}")
    for number, content in fields(message):
        if number == 1:
            graph.nodes.append(_read_node(within(content), depth=depth))
        elif number == 5:
            name, values = _read_tensor(within(content))
            graph.tensors[name] = values
        elif number == 15:
            _read_sparse(within(content))
    _check_dropout(graph)


def _read_function(message: memoryview) -> None:
    graph = Graph()
    for number, content in fields(message):
        if number == 7:
            graph.nodes.append(_read_node(within(content), depth=0))
        elif number == 11:
            _read_attribute(within(content), depth=0)
    _check_dropout(graph)


def _read_node(message: memoryview, *, depth: int) -> Node:
    node = Node()
    for number, content in fields(message):
        if number == 1:
            node.inputs.append(text(content))
        elif number == 2:
            node.outputs.append(text(content))
        elif number == 4:
            node.operator = text(content)
        elif number == 5:
            name, values = _read_attribute(within(content), depth=depth)
            if name in KEPT and values:
                node.kept[name] = values
        elif number == 7:
            node.domain = text(content)
    _check_operator(node)
    return node


def _check_operator(node: Node) -> None:
    if node.domain not in DOMAINS:
        raise ModelLoadError(f"operator {node.operator} of {node.domain!r} is not of the standard")
    if node.operator in RANDOM:
        raise ModelLoadError(f"operator {node.operator} draws at random: no answer could be proven")
    if node.operator in ENDLESS:
        raise ModelLoadError(f"operator {node.operator} may never end; export the model without it")


def _check_dropout(graph: Graph) -> None:
    """Its third input, training_mode, must be known here to be false."""
    known = dict(graph.tensors)
    for node in graph.nodes:
        if node.operator == "Constant":
            known |= dict.fromkeys(node.outputs, node.kept.get("value", ()))
    for node in graph.nodes:
        switch = node.inputs[2] if node.operator == "Dropout" and len(node.inputs) > 2 else ""
        if switch and known.get(switch) != (False,):
            raise ModelLoadError(
                "operator Dropout draws at random in training mode; export the model for inference"
            )


def _read_attribute(message: memoryview, *, depth: int) -> tuple[str, tuple[Level, ...]]:
    """Name, and the texts, integers or booleans it lists or its tensor holds."""
    name, values = "", list[Level]()
    for number, content in fields(message):
        if number == 1:
            name = text(content)
        elif number == 8:
            values += integers(content)
        elif number == 9:
            values.append(bytes(within(content)).decode("utf-8", "replace"))
        elif number in (5, 10):
            values += _read_tensor(within(content))[1]
        elif number in (6, 11):
            _read_graph(within(content), Graph(), depth=depth + 1)
        elif number in (22, 23):
            _read_sparse(within(content))
    return name, tuple(values)


def _read_sparse(message: memoryview) -> None:
    for number, content in fields(message):
        if number in (1, 2):
            _read_tensor(within(content))


def _read_tensor(message: memoryview) -> tuple[str, tuple[Level, ...]]:
    """Name, and the texts, integers or booleans it holds: nothing else is asked for."""
    found: dict[int, list[Field]] = {}
    for number, content in fields(message):
        if number in (1, 2, 5, 6, 7, 8, 9, 13, 14):
            found.setdefault(number, []).append(content)
    if 13 in found or any(found.get(14, [])):
        raise ModelLoadError(
            "the model keeps weights in another file; save it as one: "
            "onnx.save_model(model, 'model.onnx', save_as_external_data=False)"
        )
    name = text(found[8][0]) if 8 in found else ""
    return name, tuple(_values(found))


def _values(found: Mapping[int, list[Field]]) -> Iterator[Level]:
    kind = found.get(2, [0])[-1]
    if kind == STRING:
        yield from (bytes(within(part)).decode("utf-8", "replace") for part in found.get(6, []))
    elif kind == BOOL:
        yield from (bool(number) for part in found.get(5, []) for number in integers(part))
        yield from (bool(byte) for part in found.get(9, []) for byte in within(part))
    elif kind in (INT32, INT64):
        for part in found.get(5 if kind == INT32 else 7, []):
            yield from integers(part)
        for part in found.get(9, []):
            yield from np.frombuffer(within(part), "<i4" if kind == INT32 else "<i8").tolist()
