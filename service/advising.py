"""Counterfactuals of one instance: searched by a model's own predictions, and each predicted again
as an ordinary request would be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import orjson

from explainers.base import FloatArray
from explainers.counterfactual import ColumnRule, Counterfactual, Found, Problem, search
from schemas import InvalidContentError
from schemas.model_schema import Column, Level
from service.answers import encode_predictions
from service.errors import UnverifiedError
from service.logs import log
from service.policy import Recourse
from service.served import ServedModel

MOST_SECONDS = 5.0
"""By the model's calibrated cost: of slower ones fewer rows are evaluated."""

CAVEAT = (
    "What this version of the model would have answered had only these columns been different; "
    "no cause, and no promise of a later decision."
)

Instance = Mapping[str, Level | None]


@dataclass(frozen=True, slots=True)
class Advice:
    """What came of a search, as it is told and stored, and how long it took."""

    status: str
    seconds: float
    document: Mapping[str, object]


def advise(served: ServedModel, recourse: Recourse, instance: Instance, row: FloatArray) -> Advice:
    """Search for what would lead to the policy's target, from a row (F,) as it was fed to the model
    and the same as JSON.

    Raises UnverifiedError where nothing that was found holds when it is predicted again. Cost: the
    policy's `rows` model rows or 5 s, by what the model was calibrated to take.
    """
    started = perf_counter()
    native, goal = served.model.native, recourse.goal
    if goal.is_met(native.predict(row[None]).scores[0]):
        found, told = Found((), (), is_exact=True, rows_used=1), []
        status = "not_needed"
    else:
        found = search(
            Problem(
                score=lambda rows: goal.scores(native.predict(rows).scores),
                row=row,
                target=goal.limit,
                rules=recourse.rules,
                wider=recourse.wider,
                most=recourse.most,
                changes=recourse.changes,
                rows=_affordable(served, recourse.rows),
            )
        )
        told = _verified(served, recourse, instance, found)
        status = "found" if told else "none_found"
    seconds = perf_counter() - started
    document = {
        **_kept_to(served, recourse),
        "status": status,
        "counterfactuals": told,
        "constraints": _constraints(served, found),
        "is_exhaustive": found.is_exact,
        "model_evaluations": found.rows_used + len(told),
        "duration_seconds": round(seconds, 6),
        "caveat": CAVEAT,
    }
    return Advice(status, seconds, document)


def _affordable(served: ServedModel, rows: int) -> int:
    """From the calibrated cost, not from a clock: the same question has the same answer."""
    cost = served.model.manifest.cost
    seconds = cost.predict_row_in_batch or cost.predict_row
    return rows if seconds <= 0 else max(1, min(rows, int(MOST_SECONDS / seconds)))


def _kept_to(served: ServedModel, recourse: Recourse) -> dict[str, object]:
    """What the policy says of the answers, and of the columns that may change."""
    columns = zip(served.model.schema.columns, recourse.rules, strict=True)
    rules = [_rule(column, rule) for column, rule in columns if not rule.is_immutable]
    return {
        "target": recourse.goal.target,
        "margin": recourse.goal.margin,
        "threshold": recourse.goal.decided_by,
        "most_changes": recourse.changes,
        "rules": rules,
    }


def _rule(column: Column, rule: ColumnRule) -> dict[str, object]:
    levels, is_number = rule.levels, rule.levels is None
    return {
        "feature": column.name,
        "direction": rule.direction,
        "cost": rule.cost,
        "low": rule.low if is_number else None,
        "high": rule.high if is_number else None,
        "step": rule.step if is_number else None,
        "levels": None if levels is None else [_level(column, code) for code in levels],
    }


def _constraints(served: ServedModel, found: Found) -> list[dict[str, object]]:
    names = served.model.schema.names
    return [
        {
            "kind": each.kind,
            "feature": None if each.column is None else names[each.column],
            "suffices": each.suffices,
        }
        for each in found.constraints
    ]


def _verified(
    served: ServedModel, recourse: Recourse, instance: Instance, found: Found
) -> list[dict[str, object]]:
    """The answers that hold when each is decoded and predicted alone."""
    told = [
        one
        for answer in found.answers
        if (one := _told(served, recourse, instance, answer)) is not None
    ]
    if len(told) < len(found.answers):
        log.error("recourse_unverified", model=served.model.name, kept=len(told))
        served.metrics.errors("recourse", UnverifiedError.__name__).inc()
        if not told:
            raise UnverifiedError
    return told


def _told(
    served: ServedModel, recourse: Recourse, instance: Instance, answer: Counterfactual
) -> dict[str, object] | None:
    """The answer as it is told; None where a request of that instance would not be answered so."""
    model, goal = served.model, recourse.goal
    columns = [(place, model.schema.columns[place]) for place in answer.columns]
    new = {column.name: _level(column, float(answer.row[place])) for place, column in columns}
    body = orjson.dumps({"instances": [{**instance, **new}]})
    try:
        decoded = model.codec.decode(body, max_instances=1)
    except InvalidContentError:
        return None
    X = np.array(decoded.codes, dtype=np.float64)
    scores = model.native.predict(X).scores
    holds = goal.is_met(scores[0]) and goal.scores(scores)[0] >= goal.limit
    if not (holds and np.array_equal(X[0], answer.row, equal_nan=True)):
        return None
    decision = None if goal.threshold is None else goal.threshold.decide(scores[0].tolist())
    decisions = None if goal.threshold is None else [decision]
    return {
        "changes": [
            {"feature": name, "from": instance[name], "to": value} for name, value in new.items()
        ],
        "cost": round(answer.cost, 9),
        "score": float(scores[0, goal.place]),
        "prediction": orjson.loads(encode_predictions(served.templates, scores, decisions))[0],
        "decision": decision,
    }


def _level(column: Column, code: float) -> Level:
    """A code as it stands in JSON."""
    if column.levels is not None:
        return column.levels[int(code)]
    if column.kind == "boolean":
        return bool(code)
    return int(code) if column.kind == "integer" else code
