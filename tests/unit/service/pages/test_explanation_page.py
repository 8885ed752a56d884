"""The page of a record of each kind, from documents made by hand."""

import copy
import re
from typing import Any

import orjson
import pytest
from drawn import marks
from page_checks import Node, findings, parsed_page

from service.pages.contributions import MOST_ROWS
from service.pages.explanation import (
    Asked,
    Beside,
    NotInRecordError,
    Place,
    Proof,
    explanation_page,
    explanation_plot,
)
from service.pages.rendering import Rendered

Json = dict[str, Any]
PROVEN = Proof(
    *("proven", "consistent", "explaind/0/evidence", 12, "2026-11-22 04:30:01 UTC"),
    (Place(3, "decision"), Place(7, "explanation")),
)


def explained(values: list[list[list[float]]], outputs: list[str], **changes: object) -> Json:
    n_outputs, names = len(outputs), [f"column {n}" for n in range(len(values[0]))]
    return {
        "status": "complete", "reason": None, "lane": "inline",
        "method": "tree_interventional", "engine": "table", "exact": True,
        "output_space": "log_odds", "link": "logit", "output_names": outputs,
        "feature_names": names, "values": values,
        "base_values": [[0.5] * n_outputs for _ in values],
        "outputs": [[0.5 + sum(each) for each in zip(*rows, strict=True)] for rows in values],
        "standard_errors": None, "additivity_error": [0.0 for _ in values], "top": [],
        "background_digest": "sha256:00", "seed": None, "model_evaluations": 0,
        "duration_seconds": 0.001, "caveat": "They are not causes.", "links": {"self": "/x"},
        **changes,
    }  # fmt: skip


def record_of(explanation: Json | None, *, predictions: list[Json] | None = None) -> Json:
    names = ["column 0"] if explanation is None else explanation["feature_names"]
    if predictions is None:
        predictions = [{"label": "bad", "probabilities": {"good": 0.25, "bad": 0.75}}] * 2
    return {
        "request_id": "a-request-id",
        "received_at": "2026-11-22T04:30:00.123456Z",
        "model": {"name": "credit", "version": 3, "digest": "sha256:11"},
        "instances": [{name: n / 3 for n, name in enumerate(names)} for _ in predictions],
        "predictions": predictions,
        "explanation": explanation,
        "provenance": {"model_digest": "sha256:11", "library_versions": {"xgboost": "3"},
                       "lane": "inline", "completed_at": None, "principal": "ann"},
    }  # fmt: skip


TWO = explained([[[0.1], [-0.75]], [[0.2], [0.0]]], ["bad"])


def page_of(record: Json, *, instance: int = 0, output: str | None = None, **beside: Any) -> Node:
    facts: Json = {"proof": PROVEN, "warnings": [], **beside}
    rendered = explanation_page(copy.deepcopy(record), Asked(instance, output), Beside(**facts))
    assert findings(rendered.body) == []
    return parsed_page(rendered.body)


def headings(page: Node) -> list[str]:
    return [node.text for node in page.all("h2")]


def cells(page: Node, table: str) -> list[list[str]]:
    (found,) = (t for t in page.all("table") if t.all("caption")[0].text.startswith(table))
    return [[cell.text for cell in row.all("th", "td")] for row in found.all("tr")[1:]]


def text_of(rendered: Rendered) -> str:
    return " ".join(re.sub(r"<style>.*?</style>", "", rendered.body.decode()).split())


def test_a_complete_one_has_every_part() -> None:
    page = page_of(record_of(TWO))
    assert headings(page) == [
        *("Prediction", "What led to it", "All contributions", "Warnings", "Proof"),
        "Where this comes from",
    ]
    assert "The model answered bad, with probability 0.75." in page.text
    assert len(page.all("svg")) == 2
    assert "They are not causes." in page.all("footer")[0].text
    assert cells(page, "Contributions") == [
        ["1", "column 1", repr(1 / 3), "-0.75"],
        ["2", "column 0", "0.0", "0.1"],
        ["", "base value", "", "0.5"],
        ["", "output", "", repr(0.5 + 0.1 - 0.75)],
    ]


def test_each_instance_has_a_page_that_leads_to_its_neighbours() -> None:
    links = {a.text: a.get("href") for a in page_of(record_of(TWO)).all("a")}
    assert links["Next instance"] == "/explanations/a-request-id?instance=1"
    assert "Previous instance" not in links
    second = page_of(record_of(TWO), instance=1)
    links = {a.text: a.get("href") for a in second.all("a")}
    assert links["Previous instance"] == "/explanations/a-request-id?instance=0"
    assert "Next instance" not in links
    assert cells(second, "Contributions")[0] == ["1", "column 0", "0.0", "0.2"]


@pytest.mark.parametrize(("instance", "output"), [(2, None), (0, "good")])
def test_what_the_record_does_not_have_is_refused(instance: int, output: str | None) -> None:
    asked = Asked(instance, output)
    with pytest.raises(NotInRecordError) as refused:
        explanation_page(record_of(TWO), asked, Beside(PROVEN))
    assert refused.value.parameter == ("instance" if output is None else "output")
    with pytest.raises(NotInRecordError):
        explanation_plot(record_of(TWO), asked)


def test_of_several_classes_the_predicted_one_is_plotted_and_the_others_a_link_away() -> None:
    values = [[[0.1, 1.0, -1.0], [0.2, -2.0, 0.5]]]
    probabilities = {"low": 0.1, "middle": 0.2, "high": 0.7}
    record = record_of(
        explained(values, ["low", "middle", "high"], output_space="margin", link="softmax"),
        predictions=[{"label": "high", "probabilities": probabilities}],
    )
    page = page_of(record)
    assert cells(page, "Contributions")[0] == ["1", "column 0", "0.0", "-1.0", "0.1", "1.0"]
    links = {a.text: a.get("href") for a in page.all("nav")[-1].all("a")}
    assert links == {
        name: f"/explanations/a-request-id?output={name}" for name in ("low", "middle")
    }
    assert cells(page_of(record, output="middle"), "Contributions")[0][1] == "column 1"
    assert "Decision plot of all outputs" in page.text


def test_estimates_stand_with_their_standard_errors() -> None:
    own = explained([[[0.1], [-0.75]]] * 2, ["bad"], standard_errors=[[[0.01], [0.02]]] * 2)
    page = page_of(record_of(own))
    assert cells(page, "Contributions")[0][-1] == "-0.75 ± 0.02"
    assert "standard error" in page.text


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_one_without_numbers_says_why(status: str) -> None:
    names = ("values", "base_values", "outputs", "engine", "exact")
    own = {**TWO, **dict.fromkeys(names), "status": status, "reason": "over <budget>"}
    page = page_of(record_of(own))
    assert "Reason: over <budget>" in page.text
    assert not page.all("svg")
    assert cells(page, "What the model was given")[0] == ["column 0", "0.0"]
    assert "over &lt;budget&gt;" in text_of(explanation_plot(record_of(own), Asked()))


def test_a_pending_one_asks_again_by_itself() -> None:
    own = {**TWO, "status": "pending", "values": None}
    page = page_of(record_of(own), retry_after_seconds=4)
    (refresh,) = (m for m in page.all("meta") if m.get("http-equiv") == "refresh")
    assert refresh.get("content") == "4"
    assert "being computed" in page.text
    assert not [m for m in page_of(record_of(TWO)).all("meta") if m.get("http-equiv")]


def test_a_prediction_nobody_wanted_explained_is_shown_alone() -> None:
    page = page_of(record_of(None))
    assert "nobody asked for it" in page.text
    assert "nobody asked for it" in text_of(explanation_plot(record_of(None), Asked()))


def test_of_a_record_erased_in_part_the_rest_is_shown() -> None:
    record = record_of({**TWO, "values": [None, *TWO["values"][1:]]})
    record["instances"][0] = record["predictions"][0] = None
    page = page_of(record, warnings=None)
    assert "has been erased" in page.text
    assert not page.all("svg", "table")
    assert "withheld or erased" in text_of(explanation_plot(record, Asked()))
    assert page_of(record, instance=1).all("svg")


def test_a_role_with_masked_columns_gets_ranks_and_signs() -> None:
    hidden = dict.fromkeys(("values", "base_values", "outputs", "standard_errors"))
    entries = [
        {"feature": "column 1", "rank": 1, "sign": -1, "output": "bad"},
        {"feature": "column 0", "rank": 2, "sign": 0, "output": "bad"},
    ]
    own = {**TWO, **hidden, "additivity_error": None, "visible": [entries, entries]}
    record = record_of(own, predictions=[{"label": "bad", "probabilities": None}] * 2)
    record["instances"][0]["column 0"] = None
    page = page_of(record, proof=Proof("withheld"), warnings=None)
    assert cells(page, "Visible columns") == [
        ["bad", "1", "column 1", repr(1 / 3), "lowers it"],
        ["bad", "2", "column 0", "missing", "no effect"],
    ]
    assert "Warnings" not in headings(page)
    assert not page.all("svg")
    assert "withheld" in text_of(explanation_plot(record, Asked()))


def test_reasons_are_given_in_the_words_of_the_policy() -> None:
    item = {"code": "R1", "text": "Too <long>", "features": ["column 0"], "contribution": 0.1}
    given = {"decision": "decline", "status": "given", "reason": None, "items": [item]}
    given["cohort_digest"] = "sha256:c0"
    withheld = {**given, "status": "withheld", "reason": "a check failed", "items": []}
    page = page_of(record_of({**TWO, "reasons": [given, None]}))
    (reason,) = page.all("ol")[0].all("li")
    assert reason.text == "R1 Too <long> (column 0; contribution 0.1)"
    assert "measured against the reference cohort sha256:c0" in page.text
    assert "Reasons for the decision" not in headings(
        page_of(record_of({**TWO, "reasons": [given, None]}), instance=1)
    )
    assert (
        "No reasons are given: a check failed."
        in page_of(record_of({**TWO, "reasons": [withheld]})).text
    )


def test_warnings_are_those_of_the_instance_by_name() -> None:
    warnings = [
        {"pointer": "/instances/0/a~1b", "code": "unseen_category"},
        {"pointer": "/instances/1/column 0", "code": "out_of_training_range"},
        {"pointer": "/instances/10/column 1", "code": "out_of_training_range"},
    ]
    first = page_of(record_of(TWO), warnings=warnings)
    assert "a/b is a category that was not seen in training" in first.text
    second = page_of(record_of(TWO), warnings=warnings, instance=1)
    assert "column 0 lies outside the range seen in training" in second.text
    assert "column 1 lies" not in second.text


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (PROVEN, "at place 3 (decision), at place 7 (explanation)"),
        (PROVEN, "The checkpoint of 2026-11-22 04:30:01 UTC, over 12 entries, is signed"),
        (Proof("failed", "changed: header"), "The proof does not hold: changed: header"),
        (Proof("awaited"), "the next signed checkpoint is still to come"),
        (Proof("withheld"), "Proofs are withheld from your role"),
    ],
)
def test_the_proof_is_told_in_plain_words(proof: Proof, words: str) -> None:
    assert words in page_of(record_of(TWO), proof=proof).text


LISTED = {"local_model": "coefficients", "path": "attributions"}


@pytest.mark.parametrize(("kind", "member"), list(LISTED.items()))
def test_numbers_that_are_no_shapley_values_are_listed_and_not_plotted(
    kind: str, member: str
) -> None:
    content = {member: [[[1.5], [-2.5]]]}
    own = {**TWO, **dict.fromkeys(("values", "base_values", "outputs")), kind: content}
    page = page_of(record_of(own, predictions=[{"value": 1.25}]))
    assert "no Shapley values" in page.text
    assert [row[-1] for row in page_rows(page)] == ["-2.5", "1.5"]
    assert not page.all("svg")
    assert "Outputs" not in {nav.get("aria-label") for nav in page.all("nav")}
    assert "The model predicted 1.25." in page.text


@pytest.mark.parametrize(("kind", "member"), list(LISTED.items()))
@pytest.mark.parametrize("n_outputs", [3, 7])
def test_of_their_outputs_the_predicted_one_is_shown_and_the_others_a_link_away(
    kind: str, member: str, n_outputs: int
) -> None:
    names = [f"c{n}" for n in range(n_outputs)]
    values = [[[float(n) for n in range(n_outputs)], [3.0 - 2 * n for n in range(n_outputs)]]]
    hidden: Json = dict.fromkeys(("values", "base_values", "outputs"))
    own = {**explained(values, names, output_space="margin"), **hidden, kind: {member: values}}
    probabilities = {name: n / 100 for n, name in enumerate(names)}
    record = record_of(own, predictions=[{"label": names[-1], "probabilities": probabilities}])
    for asked, shown in ((None, n_outputs - 1), (names[1], 1), (names[0], 0)):
        page = page_of(record, output=asked)
        strengths = [float(row[3]) for row in page_rows(page)]
        assert strengths == sorted((row[shown] for row in values[0]), key=abs, reverse=True)
        (table,) = (t for t in page.all("table") if names[shown] in t.all("caption")[0].text)
        assert [th.text for th in table.all("tr")[0].all("th")][3] == names[shown]
        (nav,) = (n for n in page.all("nav") if n.get("aria-label") == "Outputs")
        assert {a.text: a.get("href") for a in nav.all("a")} == {
            name: f"/explanations/a-request-id?output={name}"
            for name in names
            if name != names[shown]
        }
        assert "Waterfall" not in page.text


def page_rows(page: Node) -> list[list[str]]:
    (table,) = (t for t in page.all("table") if "strongest first" in t.all("caption")[0].text)
    return [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")[1:]]


def test_of_many_columns_the_weakest_are_summed() -> None:
    values = [[float(n + 1)] for n in range(MOST_ROWS + 50)]
    page = page_of(record_of(explained([values], ["bad"]), predictions=[{"value": 1.0}]))
    rows = page_rows(page)[:-2]
    assert len(rows) == MOST_ROWS + 1
    assert rows[-1] == ["", "50 other columns, summed", "", str(sum(range(1, 51)) * 1.0)]


def test_of_many_outputs_the_table_has_the_plotted_one() -> None:
    names = [f"class {n}" for n in range(9)]
    own = explained([[[float(n) for n in range(9)]]], names, output_space="margin")
    predictions = [{"label": "class 4", "probabilities": dict.fromkeys(names, 1 / 9)}]
    page = page_of(record_of(own, predictions=predictions), output="class 4")
    assert page_rows(page)[0] == ["1", "column 0", "0.0", "4.0"]
    assert "One of 9 outputs" in page.text


def test_what_a_record_holds_is_text_wherever_it_stands() -> None:
    hostile = "<script>\"'&amp;</script>"
    own = explained([[[0.5], [0.25]]], [hostile])
    own["feature_names"] = [hostile, "b"]
    record = record_of(own, predictions=[{"label": hostile, "probabilities": {hostile: 1.0}}])
    record["instances"] = [{hostile: hostile, "b": None}]
    record["model"]["name"] = hostile
    warnings = [{"pointer": f"/instances/0/{hostile.replace('/', '~1')}", "code": hostile}]
    page = page_of(record, warnings=warnings)
    assert page_rows(page)[0][:3] == ["1", hostile, hostile]
    assert page_rows(page)[1][2] == "missing"


def test_the_plot_is_a_file_of_its_own_with_the_same_bars() -> None:
    rendered = explanation_plot(record_of(TWO), Asked())
    drawn = marks(rendered.body.decode())
    assert [mark.value for mark in drawn] == [0.5, -0.75, 0.1, 0.5 + 0.1 - 0.75]
    page = explanation_page(record_of(TWO), Asked(), Beside(PROVEN)).body.decode()
    inline = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    assert marks(inline) == drawn
    assert rendered.media_type == "image/svg+xml"


def test_a_record_of_many_instances_has_a_page_of_the_same_size() -> None:
    many = explained([[[0.5], [0.25]]] * 1000, ["bad"], seed=[n * 10**15 for n in range(1000)])
    many["additivity_error"] = [n / 7 for n in range(1000)]
    record = record_of(many, predictions=[{"value": 1.0}] * 1000)
    record["provenance"]["seed"] = many["seed"]
    asked = Asked(instance=999)
    rendered = explanation_page(record, asked, Beside(PROVEN))
    assert len(rendered.body) < 20_000
    assert f"<dd>{999 * 10**15}</dd>" in rendered.body.decode()
    assert f"<dd>{999 / 7!r}</dd>" in rendered.body.decode()


@pytest.mark.parametrize("kind", ["plotted", "listed", "visible", "unexplained"])
@pytest.mark.parametrize("letter", ["w", "\N{CJK UNIFIED IDEOGRAPH-5B57}"])
def test_a_value_that_is_a_long_text_is_cut(kind: str, letter: str) -> None:
    hidden: Json = dict.fromkeys(("values", "base_values", "outputs"))
    entry = {"feature": "column 0", "rank": 1, "sign": 1, "output": "bad"}
    own = {
        "plotted": TWO,
        "listed": {**TWO, **hidden, "path": {"attributions": TWO["values"]}},
        "visible": {**TWO, **hidden, "visible": [[entry], [entry]]},
        "unexplained": {**TWO, **hidden, "status": "skipped"},
    }[kind]
    record = record_of(own)
    record["instances"][0]["column 0"] = letter * 900_000
    rendered = explanation_page(record, Asked(), Beside(PROVEN))
    assert findings(rendered.body) == []
    assert len(rendered.body) < 60_000
    assert letter * 100 in rendered.body.decode()
    assert len(explanation_plot(record, Asked()).body) < 20_000
    assert len(record["instances"][0]["column 0"]) == 900_000


def test_the_same_document_is_the_same_page() -> None:
    record = orjson.loads(orjson.dumps(record_of(TWO)))
    pages = {explanation_page(record, Asked(), Beside(PROVEN, [])).body for _ in range(3)}
    assert len(pages) == 1
