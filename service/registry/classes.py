"""Which class is which: given, stored or obvious, checked against the data, never guessed."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from explainers.base import FloatArray, IntArray, Level
from service.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

MOST_PERMUTED = 6  # up to 720 permutations are tried; above, every swap of two classes


def resolve_classes(
    stored: tuple[Level, ...] | None, given: Sequence[str] | None, target: "pd.Series", count: int
) -> tuple[Level, ...]:
    """Class labels in the model's output order, in the target's own JSON type."""
    values = [v.item() if isinstance(v, np.generic) else v for v in target.unique().tolist()]
    if given is not None:
        text = {str(value): value for value in values}
        classes = tuple(text.get(name, name) for name in given)
    elif stored is not None and set(values) <= set(stored):
        classes = stored
    elif {_as_int(value) for value in values} <= set(range(count)):
        classes = tuple(range(count))
    else:
        raise InvalidInputError(
            f"the model does not store its class names and the target is not 0..{count - 1}; "
            "give them in output order with --classes, the class of output 0 first"
        )
    if len(classes) != count or len(set(map(str, classes))) != count:
        raise InvalidInputError(f"the model has {count} classes, {len(classes)} were named")
    return classes


def class_indices(classes: tuple[Level, ...], target: "pd.Series") -> IntArray:
    """(N,) position of each row's class; InvalidInputError for a value that is none of them."""
    position = {label: i for i, label in enumerate(classes)}
    indices = target.map(position)
    if indices.isna().any():
        strays = int(indices.isna().sum())
        raise InvalidInputError(f"the target holds values in {strays} rows that are no class")
    return np.asarray(indices, dtype=np.int64)


def check_mapping(scores: FloatArray, indices: IntArray, classes: tuple[Level, ...]) -> float:
    """Log-loss of the mapping on the data; refuses one that a permutation of the classes beats."""
    rows = np.arange(len(indices))
    logs = np.log(np.clip(scores, 1e-15, 1.0))
    given = -float(logs[rows, indices].mean())
    for order in _orders(len(classes)):
        loss = -float(logs[rows, np.asarray(order)[indices]].mean())
        if loss < given - 1e-12:
            better = [""] * len(classes)
            for label, output in zip(classes, order, strict=True):
                better[output] = str(label)
            raise InvalidInputError(
                f"with classes {','.join(map(str, classes))} the log-loss on the data is "
                f"{given:.4f}, with {','.join(better)} it is {loss:.4f}: the order is wrong"
            )
    return given


def _orders(count: int) -> list[tuple[int, ...]]:
    if count <= MOST_PERMUTED:
        return list(itertools.permutations(range(count)))[1:]
    orders = []
    for a, b in itertools.combinations(range(count), 2):
        order = list(range(count))
        order[a], order[b] = b, a
        orders.append(tuple(order))
    return orders


def _as_int(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        return None
    return int(value)
