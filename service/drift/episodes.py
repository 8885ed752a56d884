"""When drift that was told is over, and what is told of it."""

from collections.abc import Mapping

from service.drift.comparing import Comparison

RECOVERED = 0.8
"""Drift is over when nothing beyond chance is above this part of what is an alarm."""


def facts_of(found: Comparison) -> dict[str, object]:
    """What moved most, by column or output; order_lost: outputs whose columns rank differently."""
    limit = found.limits.ndcg_alarm
    lost = sorted(name for name, value in found.ndcg.items() if value < limit)
    worst = found.findings[0]
    if lost and not worst.is_alarm:
        lowest = min(lost, key=lambda name: found.ndcg[name])
        return {
            "kind": "order",
            "feature": lowest,
            "ndcg": found.ndcg[lowest],
            "order_lost": lost,
        }
    facts: dict[str, object] = {
        "kind": worst.kind,
        "feature": worst.feature,
        "psi": worst.psi,
        "psi_expected": worst.psi_expected,
        "order_lost": lost,
    }
    if worst.kind == "attribution":
        facts |= {"share_before": worst.share_before, "share_after": worst.share_after}
    return facts


def is_over(found: Comparison, facts: Mapping[str, object]) -> bool:
    """Nothing is near an alarm, and there are rows enough to say so of what was told in `facts`."""
    if found.is_alarm or not found.has_enough("feature"):
        return False
    is_of_attributions = facts.get("kind") in ("attribution", "order") or facts.get("order_lost")
    if is_of_attributions and not found.has_enough("attribution"):
        return False
    limits = found.limits
    return (
        all(one.psi < RECOVERED * limits.psi_alarm for one in found.findings if one.is_notice)
        and all(abs(one.share_shift) < RECOVERED * limits.share_alarm for one in found.findings)
        and min(found.ndcg.values(), default=1.0) > 1 - RECOVERED * (1 - limits.ndcg_alarm)
    )
