"""How many instances a principal may have predicted and explained a minute."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import monotonic

from service.auth import Caller
from service.errors import QuotaExceededError

MINUTE_SECONDS = 60.0
ROUNDING = 1e-6
"""Of an instance: what floats may lose, so that who comes when he was told to is let in."""


MOST_SHOWN = 1000
"""Explanations remembered of each principal as counted when they were shown first."""


@dataclass(slots=True, eq=False)
class _Bucket:
    """Instances a principal has left; below 0 after a request that was larger than the bucket."""

    left: float
    at: float


@dataclass(slots=True, eq=False)
class Quotas:
    """Token buckets, three per principal, in this process alone: R replicas let R times as
    much through. A bucket holds a minute's worth, which is the largest burst. 0: no limit.

    Called on the event loop only, so nothing is locked. Cost: 1 us for each limit.
    """

    predict_per_minute: int = 0
    explain_per_minute: int = 0
    recourse_per_minute: int = 0
    clock: Callable[[], float] = monotonic
    _predicted: dict[str, _Bucket] = field(default_factory=dict)
    _explained: dict[str, _Bucket] = field(default_factory=dict)
    _advised: dict[str, _Bucket] = field(default_factory=dict)
    _shown: dict[str, OrderedDict[tuple[str, str], None]] = field(default_factory=dict)

    def take(self, caller: Caller, instances: int, *, predict: bool, explain: bool) -> None:
        """Count a request before it is computed. QuotaExceededError refuses it as a whole, takes
        nothing and says when the same request passes.

        A request of more instances than a bucket holds passes when the bucket is full, and is paid
        off afterwards.
        """
        if caller.auth_method == "none":
            return
        explained = predicted = None
        if explain:
            own = caller.explain_per_minute
            limit = self.explain_per_minute if own is None else own
            explained = self._filled(self._explained, caller.principal, limit)
            _check(explained, f"{limit} instances explained", limit, instances)
        if predict:
            own = caller.predict_per_minute
            limit = self.predict_per_minute if own is None else own
            predicted = self._filled(self._predicted, caller.principal, limit)
            _check(predicted, f"{limit} instances predicted", limit, instances)
        for bucket in (explained, predicted):
            if bucket is not None:
                bucket.left -= instances

    def take_recourse(self, caller: Caller) -> None:
        """Count a search for counterfactuals before it begins. Raises as `take`."""
        if caller.auth_method == "none":
            return
        own = caller.recourse_per_minute
        limit = self.recourse_per_minute if own is None else own
        bucket = self._filled(self._advised, caller.principal, limit)
        _check(bucket, f"{limit} counterfactuals", limit, 1)
        if bucket is not None:
            bucket.left -= 1

    def take_shown(self, caller: Caller, request_id: str, instances: int) -> None:
        """Count an explanation that was made unasked as explained, when it is shown first to who
        chose the inputs. Raises as `take`.
        """
        if self.was_shown(caller, request_id):
            return
        self.take(caller, instances, predict=False, explain=True)
        shown = self._shown.setdefault(caller.principal, OrderedDict())
        shown[caller.tenant, request_id] = None
        if len(shown) > MOST_SHOWN:
            shown.popitem(last=False)

    def was_shown(self, caller: Caller, request_id: str) -> bool:
        """It has been counted, and is remembered longer now."""
        shown = self._shown.get(caller.principal)
        if shown is None or (caller.tenant, request_id) not in shown:
            return False
        shown.move_to_end((caller.tenant, request_id))
        return True

    def _filled(self, buckets: dict[str, _Bucket], principal: str, limit: int) -> _Bucket | None:
        """The principal's bucket as full as it is now; None where nothing is limited."""
        if not limit:
            return None
        now = self.clock()
        bucket = buckets.get(principal)
        if bucket is None:
            bucket = buckets[principal] = _Bucket(limit, now)
        left = bucket.left + (now - bucket.at) * limit / MINUTE_SECONDS
        bucket.left = min(limit, left)
        bucket.at = now
        return bucket


def _check(bucket: _Bucket | None, what: str, limit: int, instances: int) -> None:
    if bucket is None:
        return
    lacking = (min(limit, instances)) - bucket.left
    if lacking > ROUNDING:
        seconds = ceil((lacking - ROUNDING) * MINUTE_SECONDS / limit)
        raise QuotaExceededError(f"this key may have {what} a minute", seconds=seconds)
