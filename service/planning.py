"""Where an explanation is computed, decided from its cost before any work starts."""

from typing import NamedTuple

from service.evidence import Lane
from service.registry import RegisteredModel

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


def plan_explanation(
    model: RegisteredModel, n_rows: int, *, inline_budget_seconds: float, queue_is_full: bool
) -> Plan:
    """Inline what is exact, calls no model and is calibrated to fit the budget; queued the rest.

    A full queue sheds the explanation before it touches the prediction.
    """
    explained = model.manifest.explainer
    if explained.method is None or (model.runs_inline and model.explainer is None):
        return Plan(None, f"no explainer: {explained.reason}", counted_in="inline")
    if model.runs_inline and _seconds(model, n_rows) <= inline_budget_seconds:
        return INLINE
    return SHED if queue_is_full else QUEUED


def _seconds(model: RegisteredModel, n_rows: int) -> float:
    cost = model.manifest.cost
    return cost.explain_row if n_rows == 1 else n_rows * cost.explain_row_in_batch
