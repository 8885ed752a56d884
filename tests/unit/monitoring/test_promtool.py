"""What Prometheus's own tool says about the rules."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_server import REQUIRED, binary

from scripts.monitoring.definitions import ROOT
from scripts.monitoring.files import RULES, TESTS

FEW_COLLECTIONS = {"GOGC": "400"}
"""A quarter of its time goes into collecting garbage otherwise."""


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binary("promtool"), *arguments],
        env=os.environ | FEW_COLLECTIONS,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_rules_are_valid() -> None:
    done = promtool("check", "rules", ROOT / RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_expression_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    text = (ROOT / RULES).read_text().replace("unless on ()", "unless onto ()")
    (tmp_path / "rules.yml").write_text(text)
    assert promtool("check", "rules", tmp_path / "rules.yml").returncode != 0


@pytest.mark.drill
@pytest.mark.parametrize("file", TESTS)
def test_every_alert_fires_when_it_should_and_alone(file: str) -> None:
    done = promtool("test", "rules", ROOT / file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_threshold_is_noticed(tmp_path: Path) -> None:
    alerts, _ = TESTS
    tests = yaml.safe_load((ROOT / alerts).read_text())
    tests["tests"] = [t for t in tests["tests"] if t["name"].startswith("ExplaindAuditBacklog")]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    shutil.copy(ROOT / RULES, tmp_path)
    assert promtool("test", "rules", tmp_path / "tests.yml").returncode == 0
    text = (ROOT / RULES).read_text().replace("> 1000", "> 100000")
    (tmp_path / "rules.yml").write_text(text)
    assert promtool("test", "rules", tmp_path / "tests.yml").returncode != 0


def test_a_missing_tool_is_an_error_where_tools_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match="apt-get install prometheus"):
        binary("no-such-tool")
    monkeypatch.delenv(REQUIRED)
    with pytest.raises(pytest.skip.Exception, match="no-such-tool is missing"):
        binary("no-such-tool")


REQUESTS = (
    'http_server_request_duration_seconds_count{job="explaind-api", http_route="/predict", '
    'http_response_status_code="500"}'
)
WRITES = 'explain_audit_writes_total{backend="sql", outcome="%s"}'
FIRING = 'count by (alertname) (ALERTS{alertstate="firing", severity="page"})'


@pytest.mark.parametrize(
    ("requests", "names"),
    [
        pytest.param("0+100x170 17000x10", ["EvidenceDurability"], id="both over"),
        pytest.param("0+100x180", ["Availability", "EvidenceDurability"], id="one goes on"),
    ],
)
def test_a_fault_that_goes_on_is_not_hidden_by_one_that_is_over(
    requests: str, names: list[str], tmp_path: Path
) -> None:
    good = REQUESTS.replace("500", "200")
    series = {
        REQUESTS: requests,
        good: "0x170 0+100x10",
        WRITES % "error": "0+100x170 17000x10",
        WRITES % "ok": "0x170 0+100x10",
        'explain_queue_jobs{queue="low", state="dead"}': "0x180",
    }
    samples = [{"labels": f'{{alertname="Explaind{name}"}}', "value": 1} for name in names]
    case = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [{"expr": FIRING, "eval_time": "180m", "exp_samples": samples}],
    }
    file = {"rule_files": [str(ROOT / RULES)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "over.test.yml").write_text(yaml.safe_dump(file))
    done = promtool("test", "rules", tmp_path / "over.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
