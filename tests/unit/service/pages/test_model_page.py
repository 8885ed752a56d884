"""The pages of a model, of a list and of a refusal, from documents made by hand."""

from datetime import UTC, datetime
from typing import Any

import pytest
from drawn import marks
from page_checks import Node, findings, parsed_page

from service.pages.listing import list_page
from service.pages.model import MOST_BARS, DriftState, model_page, models_page
from service.pages.problem import problem_page
from service.pages.rendering import Rendered

Json = dict[str, Any]
HOSTILE = "<script>\"'&amp;"
INFO: Json = {
    "name": "credit",
    "serving_version": 3,
    "versions": [1, 3],
    "task": "binary",
    "json_schema": {
        "properties": {
            "age": {"type": "integer", "minimum": 18, "maximum": 99, "title": "Years"},
            "status": {"type": ["string", "null"], "enum": [*"abcdefghijklmn", HOSTILE, None]},
        }
    },
    "output_space": "log_odds",
    "method": "tree_interventional",
    "cost_seconds_per_instance": 1.25e-5,
}
MEANS = {f"column {n}": (37 * n % 41) / 7 for n in range(30)}
IMPORTANCE: Json = {
    "since": "2026-11-15", "until": "2026-11-22", "output_space": "log_odds", "people": 640,
    "days": 5, "withheld_days": 2, "importance": MEANS, "reason": None, "k": 20, "epsilon": 1.0,
}  # fmt: skip
DRIFT = DriftState(
    "2026-11-22 04:30 UTC",
    {"feature": 2000, "attribution": 1900},
    [("feature", "age")],
    [("feature", "age", 0.51234567), ("attribution", "status", 0.0125)],
)
SLIS = [("Explanations in the answer that did not fail", 1999, 2000)]


def page_of(rendered: Rendered) -> Node:
    assert findings(rendered.body) == []
    return parsed_page(rendered.body)


def rows(page: Node, caption: str) -> list[list[str]]:
    (table,) = (t for t in page.all("table") if t.all("caption")[0].text.startswith(caption))
    return [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")[1:]]


def test_columns_are_told_with_levels_and_bounds() -> None:
    page = page_of(model_page(INFO, IMPORTANCE, DRIFT, SLIS))
    age, status = rows(page, "What an instance")
    assert age == ["age", "integer, at least 18, at most 99", "Years"]
    listed = ", ".join("abcdefghijkl")
    assert status == ["status", f"one of {listed} and 3 more, may be missing", ""]
    terms = {each.text for each in page.all("dd")}
    assert {"12.5 microseconds an instance", "tree_interventional", "1, 3"} <= terms


def test_importances_are_drawn_and_listed_as_they_are_stored() -> None:
    rendered = model_page(INFO, IMPORTANCE, DRIFT, SLIS)
    ranked = sorted(MEANS.items(), key=lambda item: -item[1])
    listed = rows(page_of(rendered), "Mean absolute")
    assert [(name, float(value)) for name, value in listed] == ranked
    text = rendered.body.decode()
    svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    assert [(mark.name, mark.value) for mark in marks(svg)] == ranked[:MOST_BARS]


def test_drift_is_told_with_what_moved() -> None:
    page = page_of(model_page(INFO, IMPORTANCE, DRIFT, SLIS))
    assert "Moved: age (feature)." in page.text
    assert [row[-1] for row in rows(page, "How far")] == ["0.5123", "0.0125"]
    calm = DriftState(DRIFT.at, DRIFT.rows, [], DRIFT.psi)
    assert "Nothing moved." in page_of(model_page(INFO, IMPORTANCE, calm, SLIS)).text
    unknown = DriftState(DRIFT.at, {"feature": 3}, [], [])
    assert "Too few rows" in page_of(model_page(INFO, IMPORTANCE, unknown, SLIS)).text


def test_service_levels_are_told_with_what_they_are_of() -> None:
    page = page_of(model_page(INFO, IMPORTANCE, DRIFT, SLIS))
    assert rows(page, "What went") == [[SLIS[0][0], "1999", "2000", "99.95%"]]


def test_what_is_not_shown_says_why() -> None:
    page = page_of(model_page(INFO, "Not for you.", "Not yet.", "Nothing was asked."))
    assert "Not for you." in page.text
    assert "Not yet." in page.text
    assert "Nothing was asked." in page.text
    withheld = {**IMPORTANCE, "importance": None, "reason": "too few people"}
    page = page_of(model_page(INFO, withheld, DRIFT, SLIS))
    assert "too few people. A day counts when at least 20 people stand behind it" in page.text
    assert not page.all("svg")


def test_models_are_listed_with_the_way_to_each() -> None:
    second = {**INFO, "name": "other", "method": None, "cost_seconds_per_instance": None}
    page = page_of(models_page({"items": [INFO, second]}))
    links = [a.get("href") for heading in page.all("h2") for a in heading.all("a")]
    assert links == ["/models/credit", "/models/other"]
    assert "nothing: this model is not explained" in page.text
    assert "No model is served" in page_of(models_page({"items": []})).text


def item(**changes: object) -> Json:
    return {
        "request_id": "a-request-id",
        "received_at": "2026-11-22T04:30:00Z",
        "model": {"name": "credit", "version": 3, "digest": "sha256:11"},
        "status": None,
        "lane": None,
        **changes,
    }


def test_the_list_keeps_the_tenant_and_what_was_searched_for() -> None:
    query = {"tenant": "north & south", "model": HOSTILE, "status": "failed", "limit": "7"}
    document = {"items": [item()], "next_cursor": "abc"}
    page = page_of(list_page(document, query))
    fields = {each.get("name"): each.get("value") for each in page.all("input")}
    assert fields == {
        **{name: query[name] for name in ("tenant", "model", "limit")},
        "since": "",
        "until": "",
    }
    (chosen,) = (option for option in page.all("option") if "selected" in option.attributes)
    assert chosen.text == "failed"
    links = {a.text: a.get("href") for a in page.all("a")}
    assert links["a-request-id"] == "/explanations/a-request-id?tenant=north+%26+south"
    assert "cursor=abc" in links["Older ones"]
    assert "tenant=north+%26+south" in links["Older ones"]
    assert rows(page, "Newest")[0][:3] == ["2026-11-22 04:30:00 UTC", "credit 3", "none"]


def test_the_last_page_leads_nowhere() -> None:
    page = page_of(list_page({"items": [item(status="erased")], "next_cursor": None}, {}))
    assert not [a for a in page.all("a") if a.get("rel") == "next"]
    assert "Nothing matches" in page_of(list_page({"items": [], "next_cursor": None}, {})).text


@pytest.mark.parametrize("header", [None, {"request_id": "a-request-id"}])
def test_a_refusal_says_what_is_wrong_and_where_the_proof_is(header: object) -> None:
    document: Json = {
        "title": "Gone",
        "detail": HOSTILE,
        "request_id": "another-id",
        "record_status": "erased",
        "erased_at": datetime(2026, 11, 22, 4, 30, tzinfo=UTC),
    }
    if header is not None:
        document["header"] = header
    page = page_of(problem_page(document, [("?since", "does not fit")], 410))
    assert page.all("h1")[0].text == "Gone"
    assert HOSTILE in page.text
    assert "?since does not fit" in page.all("li")[-2 if header else -1].text
    assert {each.text for each in page.all("dd")} == {
        *("another-id", "erased", "2026-11-22 04:30:00 UTC")
    }
    assert [a.get("href") for a in page.all("footer")[0].all("a")] == (
        ["/explanations/a-request-id/proof"] if header else []
    )
