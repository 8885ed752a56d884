"""Which class is which: given, stored or obvious, checked against the data, never guessed."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from explainers.base import FloatArray, IntArray, Level
from service.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

HOW_TO_NAME = "name them in output order with --classes, the class of output 0 first"


def resolve_classes(
    stored: tuple[Level, ...] | None, given: Sequence[str] | None, target: "pd.Series", count: int
) -> tuple[Level, ...]:
    """Class labels in the model's output order, in the target's own JSON type."""
    values = _values(target)
    if given is not None:
        classes = _given(given, values, count)
        if stored is not None and {*map(str, stored)} == {*given} and classes != stored:
            raise InvalidInputError(
                f"the model itself stores its classes in the order {_text(stored)}"
            )
        return classes
    if stored is not None:
        if stored == (0, 1) and all(isinstance(value, bool) for value in values):
            # XGBoost's classifier stores the classes False and True as these numbers.
            return (False, True)
        if set(values) <= set(stored):
            return stored
        raise InvalidInputError(
            f"the model's classes are {_text(stored)}, the target holds others; {HOW_TO_NAME}"
        )
    if set(values) <= set(range(count)) and not any(isinstance(value, bool) for value in values):
        return tuple(range(count))
    raise InvalidInputError(
        "the model does not store its class names and the target is not "
        f"0..{count - 1}; {HOW_TO_NAME}"
    )


def _values(target: "pd.Series") -> list[Level]:
    values = [v.item() if isinstance(v, np.generic) else v for v in target.unique().tolist()]
    for value in values:
        if not isinstance(value, Level):
            raise InvalidInputError(
                f"the target holds {type(value).__name__} values; "
                "classes are text, numbers or booleans"
            )
    return values


def _given(given: Sequence[str], values: list[Level], count: int) -> tuple[Level, ...]:
    if len(set(given)) != len(given):
        raise InvalidInputError(f"--classes names a class twice: {_text(given)}")
    if len(given) != count:
        raise InvalidInputError(f"the model has {count} classes, --classes names {len(given)}")
    whole = [int(value) for value in values if isinstance(value, float) and value.is_integer()]
    of_text = {str(value): value for value in [*values, *whole]}
    return tuple(of_text.get(name, name) for name in given)


def survives_reading(given: Sequence[str]) -> bool:
    """Whether each name comes back from a CSV that is read with numbers and booleans as such."""
    return all(_is_as_written(name) for name in given)


def _is_as_written(name: str) -> bool:
    if name.lower() in {"true", "false"}:
        return name in {"True", "False"}
    for kind in (int, float):
        try:
            number = kind(name)
        except ValueError:
            continue
        return str(number) == name and math.isfinite(number)
    return True


def class_indices(classes: tuple[Level, ...], target: "pd.Series") -> IntArray:
    """(N,) position of each row's class; InvalidInputError for a value that is none of them."""
    position = {label: i for i, label in enumerate(classes)}
    indices = target.astype(object).map(position)
    if indices.isna().any():
        strays = int(indices.isna().sum())
        raise InvalidInputError(
            f"the target is none of the classes {_text(classes)} in {strays} rows; {HOW_TO_NAME}"
        )
    return np.asarray(indices, dtype=np.int64)


def check_mapping(scores: FloatArray, indices: IntArray, classes: tuple[Level, ...]) -> float:
    """Log-loss of the mapping on the data; refuses one that a permutation of the classes beats."""
    from scipy.optimize import linear_sum_assignment

    logs = np.log(np.clip(scores, 1e-15, 1.0))
    gains = np.array([logs[indices == k].sum(axis=0) for k in range(len(classes))])
    # The assignment is the best of all permutations, without trying each.
    _, best = linear_sum_assignment(gains, maximize=True)
    given = -float(np.trace(gains)) / len(indices)
    loss = -float(gains[np.arange(len(classes)), best].sum()) / len(indices)
    if loss < given - 1e-9:
        better = [str(classes[k]) for k in np.argsort(best)]
        raise InvalidInputError(
            f"with classes {_text(classes)} the log-loss on the data is {given:.4f}, "
            f"with {','.join(better)} it is {loss:.4f}: the order is wrong"
        )
    return given


def entropy(indices: IntArray) -> float:
    """Log-loss of always predicting the classes' shares."""
    shares = np.unique(indices, return_counts=True)[1] / len(indices)
    return -float(np.sum(shares * np.log(shares)))


def _text(classes: Sequence[Level]) -> str:
    return ",".join(map(str, classes))
