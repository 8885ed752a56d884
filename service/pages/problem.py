"""A problem document (RFC 9457) as a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.pages.rendering import Rendered, page

SHOWN = {
    "request_id": "Request ID",
    "record_status": "The record is",
    "erased_at": "Since",
}


@dataclass(frozen=True, slots=True)
class View:
    """What the template shows."""

    status: int
    title: str
    detail: str | None
    errors: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    links: Sequence[tuple[str, str]]


def problem_page(
    document: Mapping[str, object], errors: Sequence[tuple[str, str]], status: int
) -> Rendered:
    """The refusal in words. errors: pointer and detail of each."""
    title, detail = str(document["title"]), str(document["detail"])
    known = [(text, document.get(name)) for name, text in SHOWN.items()]
    header = document.get("header")
    links = []
    if isinstance(header, dict):
        links.append(("Proof of what is left", f"/explanations/{header['request_id']}/proof"))
    view = View(
        status,
        title,
        None if detail == title else detail,
        errors,
        [(text, _said(value)) for text, value in known if value is not None],
        links,
    )
    return page("problem.html", view)


def _said(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value)
