"""Answers that are documents for programs and pages for people: which is meant, and its headers."""

from collections.abc import Mapping, Sequence
from typing import Literal

from fastapi.responses import Response

from schemas import Violation
from service.errors import NotFoundError
from service.http import RequestContext
from service.negotiation import HTML, JSON, SVG, preferred
from service.pages.rendering import Rendered

VARY = "Accept, Authorization"
PageFormat = Literal["json", "html"]
"""Named in the query, for links: it goes before Accept."""

Format = Literal["json", "html", "svg"]
"""Likewise, where there is a plot."""

MEDIA_TYPES: Mapping[Format, str] = {"json": JSON, "html": HTML, "svg": SVG}
WITH_PAGE = (JSON, HTML)
WITH_PLOT = (JSON, HTML, SVG)


def wanted(context: RequestContext, named: Format | None, offers: Sequence[str]) -> str:
    """The media type to answer with: one of those offered, or the one that is named."""
    if named is None:
        return preferred(context.header(b"accept"), offers)
    return MEDIA_TYPES[named]


def not_there(parameter: str, detail: str) -> NotFoundError:
    """A query parameter that names nothing there is."""
    return NotFoundError("see errors", errors=[Violation(f"?{parameter}", detail, "unknown")])


def sent(rendered: Rendered, headers: Mapping[str, str]) -> Response:
    """A representation as an answer; one without a policy of its own gets everybody's."""
    own = {"Content-Security-Policy": rendered.policy} if rendered.policy else {}
    return Response(rendered.body, headers={**headers, **own}, media_type=rendered.media_type)


def described_as(*media_types: str) -> dict[int | str, dict[str, object]]:
    """For the OpenAPI document: what else a path answers with."""
    return {200: {"content": {name: {"schema": {"type": "string"}} for name in media_types}}}
