"""The candidate's card: a model whose card was begun must not be promoted with a stale one."""

from service.gate.findings import Finding, Verdict
from service.registry.described import KnownVersion
from service.registry.layout import Layout
from service.registry.sections import card_state

NEVER_BEGUN = "nobody has written any section of it (`explaind card NAME --set SECTION=FILE`)"


def card_finding(layout: Layout, new: KnownVersion, *, is_required: bool) -> Finding:
    """Blocks where a section is stale for the new version or a required one is empty; a card that
    was never begun is noted, and blocks where one is required.
    """
    state = card_state(layout, new)
    if not state.is_begun:
        verdict: Verdict = "block" if is_required else "note"
        return Finding("card", verdict, detail=NEVER_BEGUN)
    if state.troubles:
        return Finding("card", "block", detail="; ".join(state.troubles))
    written = {section.written_for for section in state.sections if section.written_for}
    versions = ", ".join(map(str, sorted(written)))
    return Finding("card", "pass", detail=f"written for version {versions}")
