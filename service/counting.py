"""What is counted of a request to predict, once its record is durable or it has failed."""

from service.errors import OverloadedError, PredictionError, ServiceError, StoreAwayError
from service.explaining import count
from service.logs import log
from service.planning import Plan
from service.preparing import Ask, Prepared
from service.reasons import NO_REASONS
from service.served import ServedModel

FALLS_BACK = (PredictionError, OverloadedError)
"""Failures of a canary after which the serving version answers."""


def _count_wanted(served: ServedModel, plan: Plan) -> None:
    """Once the record is durable, before anybody waits for a worker: a repetition wants nothing."""
    if plan.counted_in is not None:
        served.metrics.wanted[plan.counted_in].inc()


def count_failure(served: ServedModel, ask: Ask, error: Exception) -> ServiceError:
    """Count a request that failed; what its transport is to say. Where the serving version is to
    answer instead of a canary, nobody's has failed yet, and that one counts what was wanted.
    """
    metrics = served.metrics
    if served.is_candidate and isinstance(error, FALLS_BACK):
        return error
    metrics.predictions["error"].inc()
    _count_wanted(served, ask.plan)
    if ask.plan.counted_in is not None:
        metrics.explanations[ask.plan.counted_in, "failed"].inc()
    if isinstance(error, ServiceError):
        return error
    metrics.errors("store", type(error).__name__).inc()
    log.warning("store_away", request_id=ask.request_id, reason=str(error))  # names hosts and files
    return StoreAwayError()


def exemplar_of(ask: Ask) -> dict[str, str]:
    """What leads from a latency's bucket to a request; it costs as much as three counters."""
    if ask.trace_id is None:
        return {"request_id": ask.request_id}
    return {"request_id": ask.request_id, "trace_id": ask.trace_id}


def count_success(
    served: ServedModel,
    ask: Ask,
    prepared: Prepared,
    seconds: float,
    exemplar: dict[str, str] | None,
) -> None:
    """Count an answered request, and its explanation unless that is still to come."""
    metrics, explained = served.metrics, prepared.explained
    metrics.predictions["ok"].inc()
    _count_wanted(served, prepared.plan)
    if prepared.reasons is not NO_REASONS:
        prepared.reasons.add_to(metrics)
    if prepared.plan.lane is None:
        if prepared.plan.counted_in is not None:
            metrics.explanations[prepared.plan.counted_in, "rejected"].inc()
        return
    if explained is None:
        return  # whoever stores it counts it
    assert served.model.invariants is not None
    tolerance = served.model.invariants.tolerance
    count(metrics, explained.tally(), lane="inline", tolerance=tolerance)
    if prepared.event.status == "complete":
        metrics.payload_size["inline"].observe(prepared.explanation_size / len(ask.body.rows))
        metrics.explanations["inline", "served"].inc()
        metrics.duration["inline"].observe(seconds, exemplar)
    else:
        metrics.explanations["inline", "failed"].inc()
