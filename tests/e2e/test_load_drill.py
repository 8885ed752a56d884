"""The load drill itself, shortened: a burst of 20 times the steady load on a real service."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "load_drill.py"
UNTIMED = {
    "refusals without Retry-After",
    "acknowledged records lost",
    "requests unanswered or reset",
    "requests answered 500",
}
"""What holds however slow the machine is."""

PLOTS = {"goodput", "refusals", "latency", "livez"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the drill needs two cores")
    out = tmp_path_factory.mktemp("drill")
    command = [sys.executable, str(PROGRAM), "--short", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (out / "figures.json").exists(), done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def figures(folder: Path) -> Any:
    return json.loads((folder / "figures.json").read_text())


@pytest.mark.drill
def test_a_burst_loses_nothing_and_refuses_politely(figures: Any) -> None:
    targets = {target["what"]: target["met"] for target in figures["targets"]}
    assert {what: targets[what] for what in UNTIMED} == dict.fromkeys(UNTIMED, True)


@pytest.mark.drill
def test_the_burst_was_more_than_the_service_takes(figures: Any) -> None:
    burst = figures["phases"]["burst"]["statuses"]
    answered = {status.split()[1] for status in burst}
    assert {"200", "503"} <= answered <= {"200", "503", "-1"}


@pytest.mark.drill
def test_the_service_is_well_after_it(figures: Any) -> None:
    assert figures["is_ready"]
    assert figures["backlog"] == 0


@pytest.mark.drill
def test_the_report_shows_its_plots(folder: Path) -> None:
    report = (folder / "report.md").read_text()
    assert set(re.findall(r"\]\((\w+)\.svg\)", report)) == PLOTS
    for plot in PLOTS:
        root = ET.fromstring((folder / f"{plot}.svg").read_text())  # noqa: S314 - our own
        assert root.tag.endswith("svg")
        assert "NaN" not in (folder / f"{plot}.svg").read_text()
