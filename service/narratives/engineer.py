"""For who runs the model: how the numbers were made, and what identifies all of it."""

from collections.abc import Mapping
from typing import Any

from service.narratives.agent import ranked
from service.narratives.cases import Case, Effect
from service.narratives.numerals import signed
from service.narratives.said import (
    NOTHING,
    Document,
    Piece,
    Said,
    listed,
    number,
    quoted,
    said,
    sentences,
)

MOST = 5
"""Columns told of, for each output."""

MOST_OUTPUTS = 10
UNFINISHED = {
    "pending": "The explanation is pending.",
    "failed": "The explanation failed.",
    "skipped": "The explanation was skipped.",
    None: "No explanation was asked for.",
}
DIGESTS = ("model", "artifact", "schema", "background", "explainer_config")


def head(record: Document) -> list[Said]:
    """Who answered, and where all of it comes from."""
    again = record.get("parent_request_id")
    asked = said(
        f"Request {quoted(record['request_id'])}, received at {quoted(record['received_at'])}, "
        f"answered by {quoted(record['model']['name'])}, version ",
        *(number(record, "model", "version"), f", for {_known(record, 'principal')}."),
    )
    twice = f"It explains request {quoted(again)} again." if again else ""
    return [sentences(asked, twice), _provenance(record)]


def method(record: Document) -> Said:
    """What was computed, by what, in which unit and at what cost."""
    explanation = record["explanation"]
    exactness = {True: ", exact", False: ", estimated"}.get(explanation["exact"], "")
    parts: list[Piece] = [
        (
            f"Method {quoted(explanation['method'])}, engine {quoted(explanation['engine'])}"
            f"{exactness}, lane {quoted(explanation['lane'])}."
        ),
        f"Output space {quoted(explanation['output_space'])}, link {quoted(explanation['link'])}.",
    ]
    if explanation["model_evaluations"] is not None:
        rows = number(record, "explanation", "model_evaluations")
        parts.append(said("Model evaluations: ", rows, "."))
    if explanation["duration_seconds"] is not None:
        seconds = number(record, "explanation", "duration_seconds")
        parts.append(said("Duration in seconds: ", seconds, "."))
    return sentences(*parts)


def outcome(case: Case) -> Said:
    """Each explained output: base value, what the values add up to, and the strongest columns."""
    explanation = case.explanation
    if "visible" in explanation:
        return ranked(case)
    if case.values is None:
        return said("This method fills no array of values.")
    names = explanation["output_names"]
    told = [_output(case, output, name) for output, name in enumerate(names[:MOST_OUTPUTS])]
    more = "Further outputs are in the record." if len(names) > MOST_OUTPUTS else ""
    return sentences(*told, more, _checks(case), _estimated(case))


def _output(case: Case, output: int, name: str) -> Said:
    own = ("explanation", "base_values", case.index, output)
    total = ("explanation", "outputs", case.index, output)
    effects = [effect for effect in case.effects(output) if effect.value]
    effects = sorted(effects, key=lambda effect: -abs(effect.value))[:MOST]
    strongest = listed([_with_error(case, effect) for effect in effects])
    return said(
        *(f"Output {quoted(name)}: base value ", number(case.record, *own)),
        *(", output ", number(case.record, *total)),
        *(", largest values ", strongest, ".") if effects else (", every value is zero.",),
    )


def _with_error(case: Case, effect: Effect) -> Said:
    shown = said(f"{quoted(effect.column)} ", number(case.record, *effect.path, style=signed))
    if case.explanation.get("standard_errors") is None:
        return shown
    path = ("explanation", "standard_errors", *effect.path[2:])
    return said(shown, " (standard error ", number(case.record, *path), ")")


def _checks(case: Case) -> Said:
    if case.explanation["additivity_error"] is None:
        return NOTHING
    path = ("explanation", "additivity_error", case.index)
    return said("Additivity error: ", number(case.record, *path), " of the output's scale.")


def _estimated(case: Case) -> Said:
    if case.explanation["seed"] is None:
        return NOTHING
    return said("Seed: ", number(case.record, "explanation", "seed", case.index), ".")


def _provenance(record: Document) -> Said:
    provenance: Mapping[str, Any] = record["provenance"]
    known = [name for name in DIGESTS if provenance.get(f"{name}_digest")]
    digests = [f"{name.replace('_', ' ')} {quoted(provenance[f'{name}_digest'])}" for name in known]
    libraries = [
        f"{quoted(name)} {quoted(version)}"
        for name, version in (provenance.get("library_versions") or {}).items()
    ]
    worker = provenance.get("worker")
    return sentences(
        said("Digests: ", listed(digests), "."),
        f"Service version {_known(record, 'service_version')}.",
        said("Libraries: ", listed(libraries), ".") if libraries else NOTHING,
        f"Computed by worker {quoted(worker)}." if worker else "",
    )


def _known(record: Document, name: str) -> str:
    found = record["provenance"].get(name)
    return "unknown" if found is None else quoted(found)
