"""A model card as Markdown."""

from collections.abc import Iterator

from service.cards import Card, Drift, Performance, Today
from service.registry.frozen_card import MEASURES, code
from service.registry.sections import SectionState

NAMES = MEASURES | {"calibration_error": "calibration error"}
STATUS = {
    "unwritten": "Nobody has written its sections for people yet.",
    "incomplete": "Not to be relied on: see what is stale or empty.",
    "current": "Its sections for people were written for this version, or hold for it too.",
}


def card_markdown(card: Card) -> str:
    """What people wrote, what is true today, and last what is frozen with the version."""
    parts = [
        f"# Model card: {card.name}, version {card.version}",
        f"**Status: {card.status}.** {STATUS[card.status]}",
    ]
    if card.state.is_begun and card.state.troubles:
        parts.append("\n".join(f"- {trouble}" for trouble in card.state.troubles))
    for state in card.state.sections:
        parts += [f"## {state.section.title}", *_section(state)]
    parts += ["## Today", "\n".join(f"- {line}" for line in _today(card.version, card.today))]
    parts += ["## As registered", _demoted(card.frozen)]
    return "\n\n".join(parts).rstrip() + "\n"


def _section(state: SectionState) -> Iterator[str]:
    if state.status == "empty":
        yield "_To be written._" if state.section.is_required else "_Nothing was written._"
        return
    if state.status == "stale":
        yield f"> **Stale:** {state.reason}."
    yield _demoted(state.text)
    if state.written_for is not None:
        yield f"_Written or confirmed for version {state.written_for}._"


def _today(version: int, today: Today) -> Iterator[str]:
    if today.is_disabled:
        yield "The model is disabled: nobody is answered."
    if today.serving == version:
        since = f", since {today.serving_since:%Y-%m-%d %H:%M} UTC" if today.serving_since else ""
        yield f"This version serves{since}."
    else:
        yield f"This version does not serve: version {today.serving} does."
    if today.rollout is None:
        yield "No other version was tried beside it."
    else:
        rollout = today.rollout
        end = "" if rollout.is_active else f", ended {rollout.ended_at:%Y-%m-%d %H:%M} UTC"
        yield (
            f"Last tried: version {rollout.version} as a {rollout.mode}, since "
            f"{rollout.started_at:%Y-%m-%d %H:%M} UTC{end}."
        )
    yield _drift(today.drift)
    yield _performance(today.performance)


def _drift(drift: Drift | None) -> str:
    if drift is None:
        return "Drift: not known here."
    if drift.is_alarm is None:
        return f"Drift: too few rows to say ({drift.rows})."
    if not drift.is_alarm:
        return f"Drift: none, over {drift.rows} rows."
    moved = ", ".join(map(code, drift.moved)) or "the order of the attributions"
    return f"Drift: **yes**, over {drift.rows} rows: {moved}."


def _performance(performance: Performance | None) -> str:
    if performance is None:
        return "Labels that came later: not known here."
    over = f"{performance.rows} rows in the last {performance.days:g} days"
    if not performance.measures:
        return f"Labels that came later: too few to say ({over})."
    told = ", ".join(
        f"{NAMES.get(name, name)} {each.value:.4g} (standard error {each.standard_error:.2g})"
        for name, each in performance.measures.items()
    )
    return f"Labels that came later: {told}, over {over}."


def _demoted(markdown: str) -> str:
    """Its headings two levels down, below those of the card; code blocks as they are."""
    lines, is_code = [], False
    for line in markdown.strip().split("\n"):
        is_code ^= line.startswith("```")
        is_heading = line.startswith("#") and not is_code
        lines.append("##" + line if is_heading else line)
    return "\n".join(lines)
