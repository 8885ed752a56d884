"""Templates made into bytes, with the policy that lets a browser use nothing but the page's style.

The templates are compiled at the first page of a process (30 ms), so that a service nobody looks at
never loads Jinja.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from service.negotiation import HTML, SVG

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action {forms}; "
    "frame-ancestors 'none'"
)


class Rendered(NamedTuple):
    """A representation of a document. policy: its Content-Security-Policy."""

    body: bytes
    media_type: str
    policy: str


def page(
    template: str, view: object, *, refresh: int | None = None, forms: bool = False
) -> Rendered:
    """A view in its template. refresh: seconds after which a browser asks again; forms: it has one,
    whose answer comes from here.
    """
    found = _environment().get_template(template)
    body = found.render(v=view, refresh=refresh, style=_page_style())
    policy = POLICY.format(digest=_digest(_page_style()), forms="'self'" if forms else "'none'")
    return Rendered(body.encode(), HTML, policy)


def drawing(plot: str) -> Rendered:
    """A plot as a file of its own, which carries its style."""
    start = plot.index(">") + 1
    body = f"{plot[:start]}<style>{_plot_style()}</style>{plot[start:]}"
    policy = POLICY.format(digest=_digest(_plot_style()), forms="'none'")
    return Rendered(body.encode(), SVG, policy)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _plot_style() -> str:
    return (FOLDER / "plot.css").read_text(encoding="utf-8").strip()


@cache
def _page_style() -> str:
    return _plot_style() + (FOLDER / "page.css").read_text(encoding="utf-8").strip()


def _digest(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
