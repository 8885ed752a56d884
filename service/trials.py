"""How a candidate does beside the serving version: counts of both, and when to give it up.

Each SLI is a share of requests that went wrong: failed predictions, failed explanations, slow
answers. The candidate's is compared with the serving version's by Fisher's exact test at each
doubling of its requests, at levels whose sum over all looks is LEVEL, so that looking again and
again does not raise the chance of giving up an equal version above it, however long it runs.
"""

from dataclasses import dataclass, field, replace
from math import exp, lgamma
from typing import Literal

from service.evidence import Status
from service.metrics import Metrics, ModelMetrics

SLOW_SECONDS = 0.2
"""The contract's bound of an inline explanation's latency (M2)."""

FIRST_LOOK = 20
LEVEL = 0.01
LEAST_DIFFERENCE = 0.01
"""In the share that goes wrong: less is nothing to roll back for, however sure."""

Sli = Literal["errors", "failed_explanations", "slow"]
SLIS: tuple[Sli, ...] = ("errors", "failed_explanations", "slow")


@dataclass(slots=True)
class Arm:
    """Counts of one version since the rollout began, in this process, on its event loop."""

    requests: int = 0
    explained: int = 0
    """Explanations that were wanted and have ended, well or not."""

    wrong: dict[Sli, int] = field(default_factory=lambda: dict.fromkeys(SLIS, 0))

    def answered(self, seconds: float, status: Status | None, *, is_wanted: bool) -> None:
        """A stored answer. An explanation that is wanted and not made, for whatever reason, went
        wrong; one that a worker has yet to make says nothing.
        """
        self.requests += 1
        if is_wanted and status != "pending":
            self.explained += 1
            self.wrong["failed_explanations"] += status != "complete"
        self.wrong["slow"] += seconds > SLOW_SECONDS

    def failed(self) -> None:
        """The version could not predict."""
        self.requests += 1
        self.wrong["errors"] += 1

    def of(self, sli: Sli) -> tuple[int, int]:
        """How many went wrong, of how many."""
        return self.wrong[sli], self.explained if sli == "failed_explanations" else self.requests


@dataclass(slots=True)
class Trial:
    """A candidate's counts beside the serving version's."""

    serving: Arm = field(default_factory=Arm)
    candidate: Arm = field(default_factory=Arm)
    look: int = 0

    def breach(self) -> str | None:
        """What the candidate does worse beyond doubt, at the looks there are; None between them."""
        if self.candidate.requests < FIRST_LOOK << self.look:
            return None
        self.look += 1
        # Their sum over all looks is 1.
        level = LEVEL / len(SLIS) / (self.look * (self.look + 1))
        for sli in SLIS:
            reason = _worse(sli, self.serving.of(sli), self.candidate.of(sli), level)
            if reason is not None:
                return reason
        return None


def _worse(
    sli: Sli, serving: tuple[int, int], candidate: tuple[int, int], level: float
) -> str | None:
    (wrong, count), (own_wrong, own_count) = serving, candidate
    if not count or not own_count or not own_wrong:
        return None
    if own_wrong / own_count - wrong / count < LEAST_DIFFERENCE:
        return None
    p = fisher_greater(own_wrong, own_count, wrong, count)
    if p > level:
        return None
    return f"{sli}: {own_wrong} of {own_count} against {wrong} of {count}, p = {p:.2g}"


def fisher_greater(own_wrong: int, own_count: int, wrong: int, count: int) -> float:
    """Fisher's exact test, one-sided: the chance of so many or more of one's own among all that
    went wrong, were both alike. Cost: a microsecond for each that went wrong.
    """
    total, total_wrong = own_count + count, own_wrong + wrong
    whole = _log_choose(total, total_wrong)
    tail = sum(
        exp(_log_choose(own_count, k) + _log_choose(count, total_wrong - k) - whole)
        for k in range(own_wrong, min(own_count, total_wrong) + 1)
        if total_wrong - k <= count
    )
    return min(1.0, tail)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def canary_metrics(metrics: Metrics, model: str, method: str) -> ModelMetrics:
    """What a canary counts in. Its queued explanations are counted by who stores them, who knows no
    roles.
    """
    own, serving = metrics.bind(model, method, "canary"), metrics.bind(model, method)
    queued = {key: count for key, count in serving.explanations.items() if key[0] == "queued"}
    return replace(
        own,
        wanted={**own.wanted, "queued": serving.wanted["queued"]},
        explanations={**own.explanations, **queued},
    )


def shadow_metrics(metrics: Metrics, model: str, method: str) -> ModelMetrics:
    """What a shadow counts in: families with a role are the service's; all others, by which the
    serving version is judged, are thrown away.
    """
    shown, thrown_away = metrics.bind(model, method, "shadow"), Metrics().bind(model, method)
    return replace(
        thrown_away,
        wanted=shown.wanted,
        explanations=shown.explanations,
        duration=shown.duration,
    )
