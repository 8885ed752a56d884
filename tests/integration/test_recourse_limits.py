"""What is refused of counterfactuals because of when it is asked, and by how many."""

from pathlib import Path

from problems import assert_problem
from recourse_apps import POLICY, Instance, closest, post, predicted, serving
from servers import wait_until


def test_a_decision_by_another_threshold_is_refused(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with serving(tmp_path / "data", two_models) as live:
        client = live.client()
        referred = closest(client, mixed_rows)
        request_id = predicted(client, referred)["request_id"]

        def follow(text: str) -> None:
            (tmp_path / "data" / "policy.toml").write_text(text)
            policy = live.runtime.models.all["mixed"].policy
            wait_until(lambda: live.runtime.models.all["mixed"].policy is not policy)

        follow(POLICY.replace("at_least = 0.5", "at_least = 0.9"))
        refused = post(client, {"request_id": request_id})
        assert_problem(refused, 409, "policy_replaced")
        assert client.get(f"/explanations/{request_id}/counterfactuals").json() == {"items": []}
        told = post(client, {"model": "mixed", "instances": [referred]}).json()
        assert told["threshold"]["at_least"] == 0.9
        follow(POLICY.replace("margin = 0.1", "margin = 0.2"))
        told = post(client, {"request_id": request_id}).json()
        assert (told["status"], told["threshold"]["at_least"]) == ("found", 0.5)
