"""Words that more than one audience is told in."""

from service.narratives.cases import Aim
from service.narratives.said import quoted


def towards(aim: Aim, sign: int) -> str:
    """For which answer, or against it."""
    if aim.name is None:
        return "to raise the value" if sign > 0 else "to lower the value"
    return f"towards {quoted(aim.name)}" if sign > 0 else f"against {quoted(aim.name)}"


UNITS = {
    "log_odds": "log-odds",
    "margin": "scores before the softmax",
    "probability": "probabilities",
    "log": "logarithms of the value",
    "raw": "the value's own unit",
}
"""Of contributions, by output space."""
