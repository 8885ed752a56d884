"""Where an explanation is computed, decided from its cost before any work starts."""

from typing import NamedTuple

from service.evidence import Lane
from service.registry import RegisteredModel

BUSY = "the service is overloaded; ask again later with POST /explanations"
QUEUE_FULL = "the queue of explanations is full; ask again later with POST /explanations"


class Plan(NamedTuple):
    """What becomes of the explanation of one request.

    lane: where it is computed, None for nowhere; refusal: why it is not although it was asked for.
    counted_in: the lane whose coverage it counts in, None when it was not wanted.
    """

    lane: Lane | None
    refusal: str | None = None
    counted_in: Lane | None = None


NOTHING = Plan(None)
INLINE = Plan("inline", counted_in="inline")
QUEUED = Plan("queued", counted_in="queued")
SHED = Plan(None, QUEUE_FULL, counted_in="queued")
LEFT_OUT = Plan(None, BUSY, counted_in="inline")


def plan_explanation(
    model: RegisteredModel,
    n_rows: int,
    *,
    inline_budget_seconds: float,
    queue_is_full: bool,
    is_overloaded: bool,
) -> Plan:
    """Inline what is exact, calls no model and is calibrated to fit the budget; queued the rest.

    A full queue, or too many predictions that wait, shed the explanation before the prediction is
    touched.
    """
    explained = model.manifest.explainer
    if explained.method is None or (model.runs_inline and model.explainer is None):
        return Plan(None, f"no explainer: {explained.reason}", counted_in="inline")
    if model.runs_inline and _seconds(model, n_rows) <= inline_budget_seconds:
        return LEFT_OUT if is_overloaded else INLINE
    return SHED if queue_is_full else QUEUED


def _seconds(model: RegisteredModel, n_rows: int) -> float:
    cost = model.manifest.cost
    return cost.explain_row if n_rows == 1 else n_rows * cost.explain_row_in_batch
