"""Stored explanations checked by a second engine: what additivity cannot see, caught later.

A check reads a record and stores nothing: it can be made again at any time from the record and its
version, so an event would be no evidence of its own. It is counted, and a failure is logged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import orjson

from explainers.base import Background, Explainer, FloatArray
from explainers.exact import restricted_background, restricted_oracle
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer
from service.evidence import Record
from service.registry import RegisteredModel
from service.registry.proof import ORACLE_BACKGROUND_ROWS, ORACLE_COLUMNS, ORACLE_TOLERANCE
from service.registry.registered import naming_of

MOST_ROWS = 16
"""Of a record that are checked: its first ones."""

PASSES = 2
_HEAD = b'{"check":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Rows of a complete explanation as they are stored: fed (N, F), None for missing; values
    (N, F, C), base_values (N, C) and outputs (N, C).
    """

    model: str
    version: int
    digest: str
    fed: Sequence[Sequence[float | None]]
    values: Sequence[Sequence[Sequence[float]]]
    base_values: Sequence[Sequence[float]]
    outputs: Sequence[Sequence[float]]

    @classmethod
    def of(cls, record: Record) -> Self:
        """The first rows of a record whose explanation is complete."""
        decision = record.decision
        explanation: dict[str, Any] = orjson.loads(record.part("explanation"))
        return cls(
            model=decision.model,
            version=decision.version,
            digest=orjson.loads(decision.part("model"))["digest"],
            fed=orjson.loads(decision.part("fed"))[:MOST_ROWS],
            **{name: explanation[name][:MOST_ROWS] for name in _NUMBERS},
        )

    def to_bytes(self) -> bytes:
        """As JSON, that no other task looks like."""
        return _HEAD + orjson.dumps(self) + b"}"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        return cls(**orjson.loads(data)["check"])


_NUMBERS = ("values", "base_values", "outputs")


def is_check(task: bytes) -> bool:
    """It is a Check's bytes."""
    return task.startswith(_HEAD)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a second engine says: the largest gap of a value, relative to its row's outputs and
    values as additivity is, and the largest that passes.
    """

    gap: float
    tolerance: float
    engine: str

    @property
    def agrees(self) -> bool:
        """The gap passes; NaN does not."""
        return self.gap <= self.tolerance

    def to_bytes(self) -> bytes:
        """As JSON; what is no finite number as null."""
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        fields = orjson.loads(data)
        fields["gap"] = np.inf if fields["gap"] is None else fields["gap"]
        return cls(**fields)


def second_opinion(model: RegisteredModel, check: Check) -> Opinion:
    """By the walk for tables, by sampling for linear models, where it is exact, and by enumeration
    through the model for what the walk explains. ValueError for a version that explains nothing.

    Cost: 16 rows at most: walks, N * 4 * (F - 1) * B model rows, or 1,280 N of them.
    """
    explainer = model.explainer
    if explainer is None:
        raise ValueError(f"{model.name}/{model.version} has no explainer")
    X, values, scale = np.array(check.fed, np.float64), np.array(check.values), _scale(model, check)
    if explainer.engine == "walk":
        again = explainer.explain(X).values
        gap = max(_gap(values, again, scale), _oracle_gap(model, explainer, X, values, scale))
        return Opinion(gap, max(explainer.tolerance, ORACLE_TOLERANCE), "enumeration")
    second = explainer.against(model.background) if explainer.engine == "table" else _sampler(model)
    seeds = np.arange(len(X), dtype=np.int64)
    found = second.explain(X, seeds=seeds)
    return Opinion(_gap(values, found.values, scale), explainer.tolerance, second.engine)


def _scale(model: RegisteredModel, check: Check) -> FloatArray:
    """(N,) what a row's numbers are compared with."""
    values, base, outputs = (np.array(getattr(check, name)) for name in _NUMBERS)
    sizes = np.maximum(np.abs(outputs), np.abs(base) + np.abs(values).sum(axis=1))
    assert model.explainer is not None
    scale: FloatArray = np.maximum(sizes, model.explainer.output_scale).max(axis=1)
    return scale


def _gap(values: FloatArray, others: FloatArray, scale: FloatArray) -> float:
    gaps = np.abs(values - others).max(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(gaps == 0, 0.0, gaps / scale)
    return float(np.max(ratios))


def _sampler(model: RegisteredModel) -> PermutationExplainer:
    """Without interactions every pass over the background is exact, so the fewest will do."""
    assert model.explainer is not None
    return PermutationExplainer(
        model.evaluate,
        model.background,
        naming=naming_of(model.manifest, model.schema),
        tolerance=model.explainer.tolerance,
        config=PermutationConfig(passes=PASSES, target=1.0),
    )


def _oracle_gap(
    model: RegisteredModel,
    explainer: Explainer,
    X: FloatArray,
    values: FloatArray,
    scale: FloatArray,
) -> float:
    """The engine against brute force through the model, in the game of each row's strongest columns
    over part of the background.
    """
    reference, worst = model.background.rows[:ORACLE_BACKGROUND_ROWS], 0.0
    for x, own, size in zip(X, values, scale, strict=True):
        columns = np.argsort(-np.abs(own).max(axis=1), kind="stable")[:ORACLE_COLUMNS]
        expected = restricted_oracle(
            lambda rows: model.native.predict(rows).outputs, x[None, :], reference, columns
        )
        played = Background.of(restricted_background(reference, x, columns))
        found = explainer.against(played).explain(x[None, :]).values[:, columns]
        worst = max(worst, _gap(found, expected, np.array([size])))
    return worst
