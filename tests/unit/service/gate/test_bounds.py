"""Bounds from a file and from options; what is none is refused."""

from pathlib import Path

import pytest

from service.errors import CommandError
from service.gate import Bounds


def test_options_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "bounds.toml"
    path.write_text("label_flips = 0.3\nscore_gap = 0.2\nsame_background = false\n")
    bounds = Bounds.read(path, ("score_gap=0.4", "rows_min = 50"))
    assert (bounds.label_flips, bounds.score_gap, bounds.rows_min) == (0.3, 0.4, 50)
    assert not bounds.same_background
    assert bounds.score_psi == Bounds().score_psi


@pytest.mark.parametrize(
    "option",
    [
        "speed=1",
        "score_gap",
        "score_gap=",
        "score_gap=nan",
        "score_gap=true",
        "score_gap='0.1'",
        "same_background=0",
        "rows_min=0.5",
        "rows_min=0",
    ],
)
def test_what_is_no_bound_is_a_usage_error(option: str) -> None:
    with pytest.raises(CommandError) as raised:
        Bounds.read(None, (option,))
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("text", ["score_gap = ", "score_gap = 'x'", "[nested]\na = 1"])
def test_a_broken_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "bounds.toml").write_text(text)
    with pytest.raises(CommandError, match=r"bounds\.toml"):
        Bounds.read(tmp_path / "bounds.toml")
    with pytest.raises(CommandError, match="No such file"):
        Bounds.read(tmp_path / "absent.toml")
