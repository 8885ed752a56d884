"""Reasons of declined applicants over the real service: given, repeated, replayed, withheld."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from credit_reasons import COLUMNS, Credit, register_credit
from faulty_parts import five_percent_off, with_explainer
from later import Worker
from live_app import LiveApp, live_app
from page_checks import findings, parsed_page
from servers import JSON, Client

from schemas import Answer
from service.auth import KeyFile
from service.bulk.writing import Columns, Explained
from service.cohorts import Cohorts
from service.masking import WITHHELD
from service.policy import PolicyFile
from service.registry import Registry
from service.replaying import Recorded, replay
from service.settings import Settings

pytestmark = pytest.mark.extra_data

FORBIDS = """
[[models.german_credit.rules]]
name = "tiny loans"
when = "credit_amount < 700"
explain = "never"
"""
INLINE: dict[str, Any] = {"inline_budget_seconds": 60}
"""However slow the machine is."""


@pytest.fixture(scope="module")
def credit(tmp_path_factory: pytest.TempPathFactory) -> Credit:
    return register_credit(tmp_path_factory.mktemp("credit") / "registry")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, credit: Credit) -> Iterator[LiveApp]:
    data_dir = credit.copied_to(tmp_path_factory.mktemp("reasons"))
    policy = credit.policy(data_dir, more=FORBIDS)
    with live_app(data_dir, policy_file=policy, **INLINE) as live:
        yield live


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory, credit: Credit) -> Iterator[LiveApp]:
    """With the accepted training rows as the cohort."""
    data_dir = credit.copied_to(tmp_path_factory.mktemp("relative"))
    policy = credit.policy(data_dir, with_cohort=True)
    with live_app(data_dir, policy_file=policy, **INLINE) as live:
        yield live


@pytest.fixture(scope="module")
def declined(live: LiveApp, credit: Credit) -> list[dict[str, Any]]:
    """Applicants above the threshold whose explanation no rule forbids."""
    predictions = predicted(live.client(), credit.applicants, query="")["predictions"]
    found = zip(credit.applicants, predictions, strict=True)
    rows = [row for row, prediction in found if prediction["decision"] == "decline"]
    rows = [row for row in rows if row["credit_amount"] >= 700]
    assert len(rows) > 20
    return rows


def predicted(
    client: Client, rows: Sequence[Mapping[str, Any]], *, query: str = "?explain=true"
) -> Any:
    reply = client.predict([dict(row) for row in rows], query=query)
    assert reply.status == 200, reply.body
    Answer.model_validate_json(reply.body)
    return reply.json()


def reasons_of(client: Client, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    explanation = predicted(client, rows)["explanation"]
    assert (explanation["status"], explanation["lane"]) == ("complete", "inline")
    reasons: list[Any] = explanation["reasons"]
    return reasons


def replayed(live: LiveApp, request_id: str, policy: Path | None = None) -> Mapping[str, Any]:
    """In this process, by what a child runs, from the settings that it is given."""
    runtime = live.runtime
    given = Settings.load(runtime.settings.environment())
    record = runtime.evidence.store.record("default", request_id)
    assert record is not None
    found: Mapping[str, Any] = replay(
        Recorded.of(record),
        Registry(runtime.settings.registry),
        runtime.predicting.keyring,
        lambda _: None,
        cohorts=Cohorts(policy or given.policy_file),
    )
    return found


def by_code(live: LiveApp, values: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """Sums of contributions by code, from the policy file and an answer's own numbers."""
    assert live.runtime.settings.policy_file is not None
    table = PolicyFile.read(live.runtime.settings.policy_file).section("german_credit").reasons
    assert table is not None
    sums: dict[str, float] = {}
    for name, value in zip(names, values, strict=True):
        code = table.codes[name].code
        sums[code] = sums.get(code, 0.0) + value
    return sums


def counted(live: LiveApp, status: str) -> float:
    labels = {"model": "german_credit", "status": status}
    registry = live.runtime.metrics.registry
    return registry.get_sample_value("explain_reasons_total", labels) or 0.0


def test_every_declined_applicant_gets_reasons_of_scored_columns(
    live: LiveApp, credit: Credit
) -> None:
    rows = [row for row in credit.applicants if row["credit_amount"] >= 700]
    before = counted(live, "given")
    answer = predicted(live.client(), rows)
    explanation = answer["explanation"]
    names = explanation["feature_names"]
    assert len(names) == COLUMNS
    assert len(explanation["reasons"]) == len(rows)
    for prediction, entry, values in zip(
        answer["predictions"], explanation["reasons"], explanation["values"], strict=True
    ):
        if prediction["decision"] == "accept":
            assert entry is None
            continue
        assert (entry["decision"], entry["status"], entry["reason"]) == ("decline", "given", None)
        assert entry["cohort_digest"] is None
        assert 1 <= len(entry["items"]) <= 4
        own = dict(zip(names, (value for (value,) in values), strict=True))
        for item in entry["items"]:
            assert item["features"]
            assert all(own[name] > 0 for name in item["features"])
        sums = by_code(live, list(own.values()), names)
        strongest = sorted((code for code in sums if sums[code] > 0), key=lambda c: -sums[c])[:4]
        assert {i["code"]: i["contribution"] for i in entry["items"]} == {
            code: sums[code] for code in strongest
        }
        assert [item["code"] for item in entry["items"]] == strongest
    n_declined = sum(p["decision"] == "decline" for p in answer["predictions"])
    assert n_declined > 20
    assert counted(live, "given") == before + n_declined


def test_repeated_alone_and_read_again_they_are_the_same(
    live: LiveApp, declined: list[dict[str, Any]]
) -> None:
    client = live.client()
    answer = predicted(client, declined)
    reasons = answer["explanation"]["reasons"]
    assert reasons_of(client, declined) == reasons
    assert [reasons_of(client, [row])[0] for row in declined[:5]] == reasons[:5]
    record = client.get(f"/explanations/{answer['request_id']}").json()
    assert record["explanation"]["reasons"] == reasons


def test_replay_finds_the_same_bytes(
    live: LiveApp, credit: Credit, declined: list[dict[str, Any]]
) -> None:
    """All who were declined in one record, with some who were not."""
    client = live.client()
    others = [row for row in credit.applicants[:50] if row["credit_amount"] >= 700]
    answer = predicted(client, [*declined, *others])
    assert answer["explanation"]["status"] == "complete"
    assert None in answer["explanation"]["reasons"]
    report = replayed(live, answer["request_id"])
    assert report["equal"], report
    assert report["differing_digests"] == []


def test_a_table_lists_the_codes(
    live: LiveApp, credit: Credit, declined: list[dict[str, Any]]
) -> None:
    accepted = [row for row in credit.applicants if row not in declined][:1]
    accepted = [{**row, "credit_amount": 900, "duration_months": 4} for row in accepted]
    answer = predicted(live.client(), [declined[0], *accepted])
    record = live.runtime.evidence.store.record("default", answer["request_id"])
    assert record is not None
    served = live.runtime.models.all["german_credit"]
    lines = [*Columns(served.model, has_reasons=True).lines(Explained([1, 2], record))]
    items = answer["explanation"]["reasons"][0]["items"]
    assert answer["explanation"]["reasons"][1] is None
    assert [line.get("reasons") for line in lines] == [[item["code"] for item in items], None]
    assert Columns(served.model, has_reasons=True).schema({}).names[-1] == "reasons"
    assert "reasons" not in Columns(served.model).schema({}).names


def test_a_changed_policy_differs_in_its_version_and_not_in_its_reasons(
    live: LiveApp, tmp_path: Path, declined: list[dict[str, Any]]
) -> None:
    request_id = predicted(live.client(), declined[:3])["request_id"]
    assert live.runtime.settings.policy_file is not None
    other = tmp_path / "policy.toml"
    other.write_text(live.runtime.settings.policy_file.read_text().replace("most = 4", "most = 2"))
    report = replayed(live, request_id, other)
    assert report["equal"], report
    assert report["differing_digests"] == ["policy_version"]


@pytest.mark.parametrize("method", [None, "lime"])
def test_what_is_explained_later_is_told_by_the_stored_rule(
    live: LiveApp, declined: list[dict[str, Any]], method: str | None
) -> None:
    client = live.client()
    answer = predicted(client, declined[:2])
    body = json.dumps({"request_id": answer["request_id"], "method": method}).encode()
    reply = client.request("POST", "/explanations", body, JSON)
    assert reply.status == 202
    location = reply.headers["location"]
    assert client.get(location).json()["explanation"]["reasons"] is None
    Worker(live).complete(location.rpartition("/")[2])
    final = client.get(location).json()["explanation"]
    assert final["status"] == "complete"
    if method is None:
        assert final["reasons"] == answer["explanation"]["reasons"]
    else:
        assert [entry["status"] for entry in final["reasons"]] == ["withheld"] * 2
    report = replayed(live, location.rpartition("/")[2])
    assert report["equal"], report


def test_what_is_called_off_is_withheld(live: LiveApp, declined: list[dict[str, Any]]) -> None:
    client = live.client()
    request_id = predicted(client, declined[:1], query="")["request_id"]
    body = json.dumps({"request_id": request_id}).encode()
    location = client.request("POST", "/explanations", body, JSON).headers["location"]
    assert client.request("POST", location + "/cancel", b"", JSON).status == 202
    (entry,) = client.get(location).json()["explanation"]["reasons"]
    assert entry["status"] == "withheld"
    assert "cancelled by local" in entry["reason"]


def test_what_policy_forbids_to_explain_is_withheld(
    live: LiveApp, declined: list[dict[str, Any]]
) -> None:
    before = counted(live, "withheld")
    tiny = [{**row, "credit_amount": 600} for row in declined]
    answer = predicted(live.client(), tiny)
    explanation = answer["explanation"]
    assert explanation["status"] == "skipped"
    entries = explanation["reasons"]
    assert [entry is not None for entry in entries] == [
        prediction["decision"] == "decline" for prediction in answer["predictions"]
    ]
    told = [entry for entry in entries if entry is not None]
    assert told
    assert {(e["status"], len(e["items"])) for e in told} == {("withheld", 0)}
    assert "'tiny loans'" in told[0]["reason"]
    assert counted(live, "withheld") == before + len(told)
    report = replayed(live, answer["request_id"])
    assert report["equal"], report


def test_a_failed_check_withholds_them(
    tmp_path: Path, credit: Credit, declined: list[dict[str, Any]]
) -> None:
    data_dir = credit.copied_to(tmp_path)
    policy = credit.policy(data_dir, more=FORBIDS)
    broken = with_explainer(five_percent_off)
    with live_app(data_dir, policy_file=policy, customise=broken, **INLINE) as live:
        answer = predicted(live.client(), declined[:2])
        assert counted(live, "withheld") == 2
        assert counted(live, "given") == 0
    assert [prediction["decision"] for prediction in answer["predictions"]] == ["decline"] * 2
    explanation = answer["explanation"]
    assert explanation["status"] == "failed"
    for entry in explanation["reasons"]:
        assert (entry["status"], entry["items"]) == ("withheld", [])
        assert entry["reason"] == "the explanation failed: additivity"


def test_a_role_with_masked_columns_is_told_nothing_of_them(
    tmp_path: Path, live: LiveApp, credit: Credit, declined: list[dict[str, Any]]
) -> None:
    """One entry an instance, the same whether it was declined or not."""
    accepted = {**declined[0], "duration_months": 4, "status": "no-account", "age": 50}
    assert reasons_of(live.client(), [accepted]) == [None]
    data_dir = credit.copied_to(tmp_path)
    masks = '[models.german_credit.roles.support]\nmask = ["age"]\n'
    policy = credit.policy(data_dir, more=masks)
    content, key = KeyFile().with_key("hotline", ("predict", "explain"), roles=("support",))
    content.write(data_dir / "keys.json")
    settings = {"policy_file": policy, "api_keys_file": data_dir / "keys.json"}
    with live_app(data_dir, **settings, **INLINE) as masked:
        answer = predicted(masked.client(key), [declined[0], accepted])
    entries = answer["explanation"]["reasons"]
    assert [prediction["decision"] for prediction in answer["predictions"]] == [None, None]
    assert entries[0] == entries[1]
    assert (entries[0]["reason"], entries[0]["items"]) == (WITHHELD, [])
    assert entries[0]["decision"] is None


def test_a_cohort_is_named_and_gives_the_same_in_both_lanes(
    relative: LiveApp, live: LiveApp, declined: list[dict[str, Any]]
) -> None:
    client = relative.client()
    answer = predicted(client, declined)
    reasons = answer["explanation"]["reasons"]
    assert relative.runtime.settings.policy_file is not None
    table = PolicyFile.read(relative.runtime.settings.policy_file).section("german_credit").reasons
    assert table is not None
    assert table.cohort is not None
    assert {entry["cohort_digest"] for entry in reasons} == {table.cohort.digest}
    assert all(1 <= len(entry["items"]) <= 4 for entry in reasons)
    alone = predicted(live.client(), declined)["explanation"]
    assert answer["explanation"]["values"] == alone["values"]
    assert [entry["items"] for entry in reasons] != [e["items"] for e in alone["reasons"]]
    body = json.dumps({"request_id": answer["request_id"]}).encode()
    location = client.request("POST", "/explanations", body, JSON).headers["location"]
    Worker(relative).complete(location.rpartition("/")[2])
    assert client.get(location).json()["explanation"]["reasons"] == reasons
    report = replayed(relative, location.rpartition("/")[2])
    assert report["equal"], report
    report = replayed(relative, answer["request_id"])
    assert report["equal"], report


def test_without_its_cohort_nothing_is_guessed(
    relative: LiveApp, live: LiveApp, declined: list[dict[str, Any]]
) -> None:
    """The file at hand is another policy's: a replay says so, and a worker withholds."""
    client = relative.client()
    answer = predicted(client, declined[:2])
    report = replayed(relative, answer["request_id"], live.runtime.settings.policy_file)
    assert report["differing_digests"] == ["cohort_digest", "policy_version"]
    assert report["explanation"]["equal"]
    assert not report["equal"]
    body = json.dumps({"request_id": answer["request_id"]}).encode()
    location = client.request("POST", "/explanations", body, JSON).headers["location"]
    Worker(relative, policy_file=live.runtime.settings.policy_file).complete(
        location.rpartition("/")[2]
    )
    final = client.get(location).json()["explanation"]
    assert final["status"] == "complete"
    assert {entry["status"] for entry in final["reasons"]} == {"withheld"}
    assert "cohort is not at hand" in final["reasons"][0]["reason"]


def test_a_changed_cohort_file_is_refused(tmp_path: Path, credit: Credit) -> None:
    data_dir = credit.copied_to(tmp_path)
    policy = credit.policy(data_dir, with_cohort=True)
    with (data_dir / "approved.csv").open("a") as file:
        file.write("\n")
    with live_app(data_dir, policy_file=policy) as live:
        assert live.client().get("/readyz").status == 503
        assert live.runtime.models.refused == {"german_credit": 1}


def test_a_declined_applicants_page_gives_the_reasons_of_the_record(
    live: LiveApp, declined: list[dict[str, Any]]
) -> None:
    client = live.client()
    path = predicted(client, declined[:1])["explanation"]["links"]["self"]
    (given,) = client.get(path).json()["explanation"]["reasons"]
    reply = client.get(path, Accept="text/html")
    assert findings(reply.body) == []
    page = parsed_page(reply.body)
    (listed,) = page.all("ol")
    assert [each.text for each in listed.all("li")] == [
        f"{item['code']} {item['text']} ({', '.join(item['features'])}; "
        f"contribution {item['contribution']!r})"
        for item in given["items"]
    ]
    assert f"Decision: {given['decision']}" in page.text
