"""The runbook: a heading for each alert."""

from textwrap import fill

from scripts.monitoring.definitions import Advice, Alert, Definitions, Promise

HEAD = """# Runbook

A heading for each alert. Made from [deploy/slos.yml](../deploy/slos.yml) by
`python -m scripts.monitoring`; [observability](observability.md) says what is measured and why.

A **page** wakes somebody: people are harmed now, or will be within hours. A **ticket** waits for
the morning. Where one fault would raise several alerts, those that say less are silent.
"""


def rendered(definitions: Definitions) -> str:
    """The page as Markdown."""
    parts = [HEAD, "## Promises\n", *(_promise(definitions, one) for one in definitions.promises)]
    parts += ["## Conditions\n", *(_alert(definitions, one) for one in definitions.alerts)]
    return "\n".join(parts)


def _promise(definitions: Definitions, promise: Promise) -> str:
    pairs = ", ".join(
        f"{burn.severity} at {burn.factor:g} over {burn.long} and {burn.short}"
        for burn in definitions.burns
    )
    facts = (
        f"Promise `{promise.name}`: {promise.says} Objective {promise.objective:g} % of 30 days. "
        f"Owner {definitions.owner}. Burn rates: {pairs}."
    )
    return _section(promise.alert, facts, promise.hidden_by, promise.advice)


def _alert(definitions: Definitions, alert: Alert) -> str:
    holds = f", once it has held for {alert.holds_for}" if alert.holds_for else ""
    facts = f"{alert.says} Owner {definitions.owner}. A {alert.severity}{holds}."
    return _section(alert.name, facts, alert.hidden_by, alert.advice)


def _section(name: str, facts: str, hidden_by: tuple[str, ...], advice: Advice) -> str:
    if hidden_by:
        links = ", ".join(f"[{one}](#{one.lower()})" for one in hidden_by)
        facts += f" Silent under {links}."
    paragraphs = (
        facts,
        f"**What it means.** {advice.means}",
        f"**First look.** {advice.look}",
        f"**What to do.** {advice.act}",
    )
    body = "\n\n".join(
        fill(one, 100, break_long_words=False, break_on_hyphens=False) for one in paragraphs
    )
    return f"### {name}\n\n{body}\n"
