"""A record told to one of three audiences, from nothing but the record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from service.narratives import agent, applicant, engineer
from service.narratives.cases import Case
from service.narratives.said import NOTHING, Document, Said, place, quoted, said, sentences
from service.registry.card import CAVEAT

Audience = Literal["applicant", "agent", "engineer"]
AUDIENCES: tuple[Audience, ...] = get_args(Audience)
LANGUAGE = "en"
MOST_CASES = 20
"""Instances told of; a record may have a thousand."""

_UNFINISHED: Mapping[Audience, Mapping[str | None, str]] = {
    "applicant": applicant.UNFINISHED,
    "agent": agent.UNFINISHED,
    "engineer": engineer.UNFINISHED,
}


@dataclass(frozen=True, slots=True)
class Narrative:
    """Paragraphs of plain text. What stands in quotation marks is text of the record, as a JSON
    string; numbers: every numeral outside of them, in order, with the JSON pointer of the number
    it was rounded from (of an entry of a list: its place, counted from one).
    """

    request_id: str
    audience: Audience
    paragraphs: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    caveat: str
    language: str = LANGUAGE

    def to_json(self) -> dict[str, object]:
        """As the route answers."""
        return {
            "request_id": self.request_id,
            "audience": self.audience,
            "language": self.language,
            "paragraphs": self.paragraphs,
            "numbers": self.numbers,
            "caveat": self.caveat,
        }


def narrate(record: Document, audience: Audience) -> Narrative:
    """Tell a record, the parsed document of GET /explanations/{request_id}, whole or masked.

    It may also hold `warnings`, as the answer had them, and `decision_rule` (`class`, `at_least`,
    `name`, `otherwise`), which that document does not. Reads no clock, no model, no store.
    """
    told = [*_head(record, audience)]
    cases = [Case(record, index) for index in range(len(record["predictions"]))]
    for case in cases[:MOST_CASES]:
        told += _case(case, audience, is_one_of_many=len(cases) > 1)
    if len(cases) > MOST_CASES:
        told.append(said("The record has more cases, which are not told here."))
    told.append(_unfinished(record, audience))
    kept = [paragraph for paragraph in told if paragraph]
    return Narrative(
        request_id=record["request_id"],
        audience=audience,
        paragraphs=tuple(paragraph.text for paragraph in kept),
        numbers=tuple(number for paragraph in kept for number in paragraph.numbers),
        caveat=_caveat(record, audience),
    )


def _head(record: Document, audience: Audience) -> list[Said]:
    if audience == "applicant":
        return []
    if audience == "agent":
        return [agent.head(record)]
    is_made = _status(record) == "complete"
    return [*engineer.head(record), engineer.method(record) if is_made else NOTHING]


def _status(record: Document) -> str | None:
    """Of the explanation; None where there is none."""
    explanation = record["explanation"]
    return None if explanation is None else explanation["status"]


def _case(case: Case, audience: Audience, *, is_one_of_many: bool) -> list[Said]:
    heading = said("Case ", place("instances", case.index), ".") if is_one_of_many else NOTHING
    if case.prediction is None:
        gone = "What was recorded about this case has been erased."
        return [sentences(heading, gone)]
    first, others = _told(case, audience)
    return [sentences(heading, first), *others] if first else []


def _told(case: Case, audience: Audience) -> tuple[Said, Sequence[Said]]:
    """What came out, and how it is explained where it is."""
    is_made = _status(case.record) == "complete"
    if audience == "engineer":
        return (engineer.outcome(case) if is_made else NOTHING), ()
    speaker = applicant if audience == "applicant" else agent
    return speaker.outcome(case), speaker.case_paragraphs(case) if is_made else ()


def _unfinished(record: Document, audience: Audience) -> Said:
    status = _status(record)
    if status == "complete":
        return NOTHING
    reason = (record["explanation"] or {}).get("reason")
    why = f"The reason: {quoted(reason)}." if reason and audience != "applicant" else ""
    return sentences(_UNFINISHED[audience][status], why)


def _caveat(record: Document, audience: Audience) -> str:
    if audience == "applicant":
        return applicant.CAVEAT
    caveat: str | None = (record["explanation"] or {}).get("caveat")
    return caveat or CAVEAT
