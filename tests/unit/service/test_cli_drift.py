"""`explaind drift`: what it refuses, and what it prints."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from drifts import baseline_of_people, rows_of_people, tally_of
from typer.testing import CliRunner

from service.cli import app
from service.cli.drift import _moments
from service.drift.comparing import compare
from service.drift.report import Period, Report
from service.errors import CommandError, UnknownError, UsageError

PERIOD = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 8, tzinfo=UTC))


def run(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, ["drift", *arguments]).exception


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), UsageError),
        (("no-such-model",), UnknownError),
        (("breast_cancer", "--against", "last week"), UsageError),
        (("breast_cancer", "--against", "2026-03-02/2026-03-01"), UsageError),
        (("breast_cancer", "--from", "2026-03-02", "--to", "2026-03-01"), UsageError),
        (("breast_cancer", "--version", "9"), UnknownError),
    ],
)
def test_what_cannot_be_compared_is_refused(
    two_models: Path, tmp_path: Path, arguments: tuple[str, ...], error: type[CommandError]
) -> None:
    where = ("--registry", str(two_models), "--data-dir", str(tmp_path))
    assert type(run(*arguments, *where)) is error


def test_the_text_names_what_moved_first_with_its_source_and_size() -> None:
    baseline, rows = baseline_of_people(), rows_of_people(3000, 2)
    rows[:, 0] += 15
    rows[:600, 2] = -1.0
    found = compare(baseline.bins, baseline.names, baseline.reference, tally_of(baseline, rows))
    lines = list(Report(baseline, found, PERIOD, None).lines())
    assert lines[0] == (
        "people/1: 2026-03-01 00:00 to 2026-03-08 00:00 UTC (3000 rows) against its baseline (5000)"
    )
    assert lines[1] == "DRIFT"
    named = [line for line in lines if line.startswith("! ")]
    assert named[0] == "! age (crm.people)"
    assert "! site (no x-source in its schema)" in named
    assert any("20.0% unknown levels" in line for line in lines)
    assert any(line.strip().startswith("attributions PSI") for line in lines)
    assert not any("smoker" in line for line in lines)


def test_without_drift_the_text_is_two_lines() -> None:
    baseline = baseline_of_people()
    tally = tally_of(baseline, rows_of_people(3000, 2))
    found = compare(baseline.bins, baseline.names, baseline.reference, tally)
    assert [*Report(baseline, found, PERIOD, PERIOD).lines()][1:] == ["no drift"]


def test_too_few_rows_are_said_and_nothing_else() -> None:
    baseline = baseline_of_people()
    tally = tally_of(baseline, np.full((10, 4), 1e6))
    found = compare(baseline.bins, baseline.names, baseline.reference, tally)
    report = Report(baseline, found, PERIOD, None)
    assert len([*report.lines()]) == 3
    assert "at least 1000 against 100 are needed" in report.notes[0]
    assert report.document()["drift"] is False


@pytest.mark.parametrize(
    ("against", "since", "until"),
    [
        ("2026-03-01T02:00:00+02:00/2026-03-02", 1, 2),
        ("2026-03-01/2026-03-02T02:00:00+02:00", 1, 2),
        ("2026-03-01/2026-03-02", 1, 2),
    ],
)
def test_each_end_of_another_window_keeps_its_own_offset(
    against: str, since: int, until: int
) -> None:
    expected = (datetime(2026, 3, since, tzinfo=UTC), datetime(2026, 3, until, tzinfo=UTC))
    assert _moments(against) == expected
