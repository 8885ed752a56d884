"""What Prometheus's own tool says about the rules."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_server import REQUIRED, binary

from scripts.monitoring.definitions import ROOT
from scripts.monitoring.files import RULES, TESTS


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binary("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=300
    )


def test_the_rules_are_valid() -> None:
    done = promtool("check", "rules", ROOT / RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_expression_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    text = (ROOT / RULES).read_text().replace("unless on ()", "unless onto ()")
    (tmp_path / "rules.yml").write_text(text)
    assert promtool("check", "rules", tmp_path / "rules.yml").returncode != 0


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
