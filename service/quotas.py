"""How many instances a principal may have predicted and explained a minute."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from typing import Literal

from service.auth import Caller
from service.errors import QuotaExceededError

MINUTE_SECONDS = 60.0
ROUNDING = 1e-6
"""Of an instance: what floats may lose, so that who comes when he was told to is let in."""

Kind = Literal["predict", "explain"]
DONE: dict[Kind, str] = {"predict": "predicted", "explain": "explained"}


@dataclass(slots=True, eq=False)
class _Bucket:
    """Instances a principal has left; below 0 after a request that was larger than the bucket."""

    left: float
    at: float


@dataclass(slots=True, eq=False)
class Quotas:
    """Token buckets, one per principal and kind, in this process alone: R replicas let R times as
    much through. A bucket holds a minute's worth, which is the largest burst. 0: no limit.

    Called on the event loop only, so nothing is locked. Cost: 0.5 us.
    """

    predict_per_minute: int = 0
    explain_per_minute: int = 0
    clock: Callable[[], float] = monotonic
    _buckets: dict[tuple[str, Kind], _Bucket] = field(default_factory=dict)

    def take(self, caller: Caller, instances: int, *, predict: bool, explain: bool) -> None:
        """Count a request before it is computed. QuotaExceededError refuses it as a whole, takes
        nothing and says when the same request passes.

        A request of more instances than a bucket holds passes when the bucket is full, and is paid
        off afterwards.
        """
        if caller.auth_method == "none":
            return
        own_explain, own_predict = caller.explain_per_minute, caller.predict_per_minute
        limits: dict[Kind, int] = {}
        if explain:
            limits["explain"] = self.explain_per_minute if own_explain is None else own_explain
        if predict:
            limits["predict"] = self.predict_per_minute if own_predict is None else own_predict
        now, taken = self.clock(), []
        for kind, limit in limits.items():
            if limit:
                taken.append(self._bucket(caller.principal, kind, limit, now))
                _check(taken[-1], kind, limit, instances)
        for bucket in taken:
            bucket.left -= instances

    def _bucket(self, principal: str, kind: Kind, limit: int, now: float) -> _Bucket:
        """The principal's bucket, filled up to now."""
        bucket = self._buckets.get((principal, kind))
        if bucket is None:
            bucket = self._buckets[principal, kind] = _Bucket(limit, now)
        gained = (now - bucket.at) * limit / MINUTE_SECONDS
        bucket.left, bucket.at = min(limit, bucket.left + gained), now
        return bucket


def _check(bucket: _Bucket, kind: Kind, limit: int, instances: int) -> None:
    lacking = min(instances, limit) - bucket.left
    if lacking > ROUNDING:
        seconds = ceil((lacking - ROUNDING) * MINUTE_SECONDS / limit)
        raise QuotaExceededError(
            f"this key may have {limit} instances {DONE[kind]} a minute", seconds=seconds
        )
