"""The sample for human review, over HTTP and on the command line."""

from pathlib import Path

import pytest
from commands import explaind
from live_app import live_app
from problems import assert_problem
from tables import breast_cancer, instances_of

from service.settings import Settings

POLICY = "[models.breast_cancer]\nreview = 4\n"


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    policy = data_dir / "policy.toml"
    policy.write_text(POLICY)
    return Settings.load({}, data_dir=data_dir, policy_file=policy)


def test_both_give_the_same_uniform_sample(settings: Settings) -> None:
    rows = instances_of(breast_cancer()[0].iloc[:12])
    environment = {"EXPLAIND_POLICY_FILE": str(settings.policy_file)}
    data_dir = str(settings.data_dir)
    with live_app(settings.data_dir, policy_file=settings.policy_file) as live:
        client = live.client()
        for n, row in enumerate(rows):
            client.predict([row], query=f"?explain={'true' if n < 8 else 'false'}")
        shown = client.get("/models/breast_cancer/review").json()
        empty = client.get(
            "/models/breast_cancer/review?since=2001-01-01T00:00:00Z&until=2001-01-02T00:00:00Z"
        ).json()
        again = client.get("/models/breast_cancer/review").json()
    assert shown["size"] == len(shown["items"]) == 4
    assert {item["status"] for item in shown["items"]} == {"complete"}
    assert again["items"] == shown["items"]
    assert empty["items"] == []
    ids = [item["request_id"] for item in shown["items"]]
    printed = explaind("review", "breast_cancer", "--data-dir", data_dir, env=environment)
    assert printed.stdout.split() == ids, printed.stderr
    written = explaind("accesses", "--json", "--data-dir", data_dir).stdout
    assert written.count("access/review") == 4, "three over HTTP, one by command"
    as_json = explaind("review", "breast_cancer", "--json", "--data-dir", data_dir)
    assert len(as_json.stdout.split("request_id")) - 1 == 8  # without the policy: up to 100


def test_the_command_reads_where_the_service_was_told_to_write(
    data_dir: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    with live_app(data_dir, database_url=url) as live:
        live.client().predict(instances_of(breast_cancer()[0].iloc[:1]))
    place = ("review", "breast_cancer", "--data-dir", str(data_dir))
    assert explaind(*place).stdout == ""
    printed = explaind(*place, "--database-url", url)
    assert len(printed.stdout.split()) == 1, printed.stderr


def test_policy_and_secret_of_the_service_are_flags_of_the_command_too(
    settings: Settings, tmp_path: Path
) -> None:
    policy, secret = settings.policy_file, tmp_path / "elsewhere"
    with live_app(settings.data_dir, policy_file=policy, secret_file=secret) as live:
        client = live.client()
        for row in instances_of(breast_cancer()[0].iloc[:12]):
            client.predict([row])
        shown = client.get("/models/breast_cancer/review").json()["items"]
    files = ("--policy-file", str(policy), "--secret-file", str(secret))
    place = ("--data-dir", str(settings.data_dir))
    printed = explaind("review", "breast_cancer", *files, *place)
    assert printed.stdout.split() == [item["request_id"] for item in shown], printed.stderr


def test_what_is_not_there_is_said(settings: Settings) -> None:
    with live_app(settings.data_dir, policy_file=settings.policy_file) as live:
        client = live.client()
        assert_problem(client.get("/models/nobody/review"), 404, "not_found")
        bad = client.get("/models/breast_cancer/review?since=yesterday")
        assert_problem(bad, 422, "invalid_content")
        for until in ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00"):
            oldest = client.get(f"/models/breast_cancer/review?until={until}")
            assert (oldest.status, oldest.json()["items"]) == (200, [])
    done = explaind("review", "nobody", "--data-dir", str(settings.data_dir))
    assert done.returncode == 3
    assert "no model named 'nobody'" in done.stderr
