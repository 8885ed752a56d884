"""A command that is forked says and does what one that is started would."""

from pathlib import Path

import commands
import pytest
import servers

BAD = {"EXPLAIND_PORT": "many"}


@pytest.mark.parametrize(
    ("arguments", "env", "exit_code"),
    [
        (("models", "list", "--json"), {}, 0),
        (("models", "show", "nobody"), {}, 3),
        (("serve",), BAD, 2),
    ],
)
def test_it_prints_and_ends_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    env: dict[str, str],
    exit_code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    forked, started = (one.explaind(*arguments, env=env) for one in (commands, servers))
    assert forked.returncode == started.returncode == exit_code
    assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


def test_nothing_of_it_stays_for_the_next(tmp_path: Path) -> None:
    place = f"--data-dir={tmp_path}"
    assert commands.explaind("serve", place, env=BAD).returncode == 2
    assert commands.explaind("models", "list", place).returncode == 0
