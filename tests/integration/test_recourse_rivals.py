"""Counterfactuals of another library, where it is installed, for the same applicants and prices."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "recourse_rivals.py"


@pytest.mark.extra_data
@pytest.mark.skipif(
    find_spec("dice_ml") is None,
    reason="dice-ml is not locked: its dependency `xgboost` would replace xgboost-cpu",
)
def test_nothing_that_dice_ml_finds_is_cheaper() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--applicants", "5"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 compared" in done.stdout
