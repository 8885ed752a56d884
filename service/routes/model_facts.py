"""What a model's page says beside its document: importances and drift, to whom may see them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from service.auth import Caller
from service.errors import ForbiddenError, StoreAwayError
from service.importance import importance_document, window_of
from service.indicators import Indicator, indicators_of
from service.metrics import BACKEND
from service.pages.model import DriftState, Json
from service.registry import RegisteredModel
from service.runtime import Runtime

NEEDS_AUDIT = "Shown to keys with the scope audit."
NEEDS_METRICS = "Shown to keys with the scope metrics."
WITHHELD = "Withheld from your role, which does not see every column of this model."
AWAY = "The evidence store is away; look again later."
NOT_ASKED = "Nothing was asked of this process yet."
NOT_LOOKED = "Nobody has looked at drift yet: the first look is some seconds after the start."
PSI, ALARM = "explain_drift_psi", "explain_drift_alarm"


async def importance_of(runtime: Runtime, caller: Caller, model: RegisteredModel) -> Json | str:
    """GET /models/{name}/importance of the default window, or why it is not shown. Written into
    the access log as that call is.
    """
    if "audit" not in caller.scopes:
        return NEEDS_AUDIT
    try:
        runtime.views.check_sees_all(caller, model)
    except ForbiddenError:
        return WITHHELD
    begin, end = window = window_of(None, None)
    counts = runtime.metrics.audit_reads
    try:
        found = await runtime.importances.of(caller.tenant, model, window)
    except StoreAwayError:
        counts.labels(BACKEND, "error").inc()
        return AWAY
    await runtime.accesses.note(caller, "importance", model=model.name, since=begin, until=end)
    counts.labels(BACKEND, "ok").inc()
    document = importance_document(model, window, found, runtime.settings.k_anonymity)
    parsed: Json = orjson.loads(orjson.dumps(document))
    return parsed


def slis_of(runtime: Runtime, caller: Caller, name: str) -> Sequence[Indicator] | str:
    """What this process has counted since its start, or why it is not shown."""
    if "metrics" not in caller.scopes:
        return NEEDS_METRICS
    return indicators_of(runtime.metrics, name) or NOT_ASKED


def drift_of(runtime: Runtime, caller: Caller, name: str) -> DriftState | str:
    """What /metrics says of a model's drift, or why it is not shown."""
    if "metrics" not in caller.scopes:
        return NEEDS_METRICS
    found = runtime.metrics.drift.of(name)
    if found is None:
        return NOT_LOOKED
    measured = found.measured
    return DriftState(
        f"{datetime.fromtimestamp(found.at, UTC):%Y-%m-%d %H:%M} UTC",
        found.rows,
        [(one.kind, one.feature) for one in measured if one.gauge == ALARM and one.value],
        [(one.kind, one.feature, one.value) for one in measured if one.gauge == PSI],
    )
