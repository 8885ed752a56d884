"""The page of GET /explanations: a search form and a page of what it found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from schemas.messages import ListedStatus
from service.pages import wording
from service.pages.rendering import Rendered, page

Json = dict[str, Any]
PATH = "/explanations"
SHOWN_DATE = 10


@dataclass(frozen=True, slots=True)
class Item:
    """One record of the list."""

    received_at: str
    model: str
    status: str
    request_id: str
    url: str


@dataclass(frozen=True, slots=True)
class View:
    """What the template shows. kept: parameters that the form sends along unseen."""

    model: str
    since: str
    until: str
    status: str
    statuses: Sequence[str]
    kept: Sequence[tuple[str, str]]
    items: Sequence[Item]
    next_url: str | None
    links: Sequence[tuple[str, str]]


def list_page(document: Json, query: Mapping[str, str]) -> Rendered:
    """One page of the list; query: that of the request."""
    tenant = {name: value for name, value in query.items() if name == "tenant"}
    kept = [(name, query[name]) for name in ("tenant", "limit") if name in query]
    cursor = document["next_cursor"]
    view = View(
        model=query.get("model", ""),
        since=query.get("since", "")[:SHOWN_DATE],
        until=query.get("until", "")[:SHOWN_DATE],
        status=query.get("status", ""),
        statuses=get_args(ListedStatus),
        kept=kept,
        items=[_item(item, tenant) for item in document["items"]],
        next_url=None if cursor is None else wording.link(PATH, query, cursor=cursor),
        links=[("This list as JSON", wording.link(PATH, query, format="json"))],
    )
    return page("list.html", view, forms=True)


def _item(item: Json, tenant: Mapping[str, str]) -> Item:
    model = item["model"]
    return Item(
        wording.moment(item["received_at"]),
        f"{model['name']} {model['version']}",
        item["status"] or "none",
        item["request_id"],
        wording.link(f"{PATH}/{item['request_id']}", tenant),
    )
