"""Definitions that promise what cannot be kept are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.monitoring.definitions import SOURCE, Clock, load

Change = Callable[[dict[str, Any]], None]


def twice(said: dict[str, Any]) -> None:
    said["alerts"][0]["alert"] = said["slos"][0]["alert"]


def hidden_by_nobody(said: dict[str, Any]) -> None:
    said["alerts"][0]["hidden_by"] = ["Nobody"]


def shouting(said: dict[str, Any]) -> None:
    said["alerts"][0]["severity"] = "critical"


def speechless(said: dict[str, Any]) -> None:
    said["slos"][0]["runbook"]["act"] = ""


def unquoted(said: dict[str, Any]) -> None:
    said["alerts"][0]["cases"][0]["series"] = {"up": 0x20}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (twice, "one name"),
        (hidden_by_nobody, "do not exist"),
        (shouting, "severities"),
        (speechless, "what to do"),
        (unquoted, "quote the samples"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, change: Change, error: str) -> None:
    said = yaml.safe_load(SOURCE.read_text())
    change(said)
    (tmp_path / "slos.yml").write_text(yaml.safe_dump(said))
    with pytest.raises((TypeError, ValueError), match=error):
        load(tmp_path / "slos.yml")


def test_all_lengths_of_time_are_shortened_by_one_factor() -> None:
    written = "rate(a[1h]) > ${2m} and b[5m]"
    assert Clock().expression(written) == "rate(a[1h]) > 120 and b[5m]"
    assert Clock(1 / 60).expression(written) == "rate(a[60000ms]) > 2 and b[5000ms]"
