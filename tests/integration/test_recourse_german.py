"""German credit, with the policy of docs/recourse.md: every declined applicant kept out of training
gets recourse that holds, or what stands in its way.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from german_bank import register_bank
from live_app import LiveApp, live_app
from servers import JSON
from tables import instances_of, larger_table

pytestmark = pytest.mark.extra_data


@pytest.fixture(scope="module")
def applicants() -> list[dict[str, Any]]:
    table = larger_table("german_credit").drop(columns="risk")
    return instances_of(table.iloc[::5])


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    folder = tmp_path_factory.mktemp("bank")
    register_bank(folder)
    with live_app(folder, policy_file=folder / "policy.toml") as live:
        yield live


def predictions(bank: LiveApp, instances: list[dict[str, Any]]) -> Any:
    return bank.client().predict(instances, path="/models/german_credit/predict").json()


def assert_allowed(changes: list[dict[str, Any]]) -> None:
    """By the rules of the page, written out here once more."""
    order = ["0DM", "less-200DM", "over-200DM"]
    assert 1 <= len(changes) <= 4
    for change in changes:
        old, new = change["from"], change["to"]
        match change["feature"]:
            case "duration_months":
                assert 4 <= new < old
            case "credit_amount":
                assert new < old
                assert new % 100 == 0
            case "status":
                assert order.index(old) < order.index(new)
            case "installment_rate":
                assert 1 <= new <= 4
            case "existing_credits":
                assert 1 <= new < old
            case other:
                assert other in {"savings", "other_debtors", "other_installment_plans", "telephone"}
        assert new != old


def test_every_declined_applicant_gets_recourse_that_holds_or_what_stands_in_the_way(
    bank: LiveApp, applicants: list[dict[str, Any]]
) -> None:
    client = bank.client()
    answer = predictions(bank, applicants)
    declined = [i for i, p in enumerate(answer["predictions"]) if p["decision"] == "decline"]
    assert len(declined) > 40
    told = []
    for place in declined:
        asked = {"request_id": answer["request_id"], "instance": place}
        reply = client.request("POST", "/counterfactuals", json.dumps(asked).encode(), JSON)
        assert reply.status == 200, reply.body
        told.append((applicants[place], reply.json()))
    changed, expected = [], []
    for applicant, found in told:
        if found["status"] == "none_found":
            assert found["constraints"]
            continue
        assert found["status"] == "found"
        for each in found["counterfactuals"]:
            assert_allowed(each["changes"])
            changed.append(applicant | {c["feature"]: c["to"] for c in each["changes"]})
            expected.append(each["prediction"])
    assert len(changed) > len(declined)
    assert predictions(bank, changed)["predictions"] == expected
    assert all(each["decision"] == "accept" for each in expected)
    assert max(each["probabilities"]["bad"] for each in expected) < 0.45
