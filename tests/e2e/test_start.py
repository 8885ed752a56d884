"""The ten-minute paths of docs/start: every command typed, what is shown is what comes out."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from followed_pages import (
    ROOT,
    File,
    Follower,
    NotAsShownError,
    Typed,
    follower,
    fresh_checkout,
    is_as_shown,
    steps_of,
)
from prometheus_server import binary

PAGES = {
    "application": ("8000",),
    "auditor": ("8000",),
    "ml-engineer": ("8000",),
    "sre": ("8000", "6379", "9101"),
}
"""Each with the ports it names."""


def page(name: str) -> str:
    return (ROOT / "docs" / "start" / f"{name}.md").read_text()


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `scripts/run` registered for the first page: the others' finds it there."""
    return tmp_path_factory.mktemp("registered") / "breast_cancer"


@pytest.mark.drill
@pytest.mark.parametrize("name", PAGES)
def test_every_command_works_and_prints_what_is_shown(
    tmp_path: Path, registered: Path, name: str
) -> None:
    if name == "sre":
        binary("promtool")
    own = tmp_path / "explaind-data" / "registry" / "breast_cancer"
    with fresh_checkout(tmp_path) as folder, follower(folder, PAGES[name]) as reader:
        if registered.exists():
            shutil.copytree(registered, own)
        reader.follow(steps_of(page(name)))
    if not registered.exists():
        shutil.copytree(own, registered)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_a_file_or_typed_and_links_lead_somewhere(name: str) -> None:
    text, steps = page(name), steps_of(page(name))
    assert text.count("```") == 2 * len(re.findall(r"^```(?:console|python)$", text, re.MULTILINE))
    assert text.count("\n```python\n") == sum(isinstance(step, File) for step in steps)
    assert len(re.findall(r"^\$ ", text, re.MULTILINE)) == sum(
        isinstance(step, Typed) for step in steps
    )
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs" / "start" / link).exists(), link


def test_the_readme_leads_to_each() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = {file.stem for file in (ROOT / "docs" / "start").glob("*.md")}
    assert pages == PAGES.keys()
    assert all(f"](docs/start/{name}.md)" in readme for name in pages)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Follower]:
    with follower(tmp_path_factory.mktemp("shell"), ["8000"]) as reader:
        yield reader


CONSOLE = """Text.

```console
$ echo one \\
    two
one two
$ false || echo "exit code $?"
exit code 1
```
"""


def test_a_page_that_tells_the_truth_is_followed(shell: Follower) -> None:
    steps = steps_of(CONSOLE + "\nSave as `note`:\n\n```python\nprint(8000)\n```\n")
    assert steps[-1] == File("note", "print(8000)\n")
    shell.follow(steps)
    assert (shell.folder / "note").read_text() != "print(8000)\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ("one two\n$", "one three\n$"),
        ("one two\n$", "one two\nthree\n$"),
        ('false || echo "exit code $?"\nexit code 1', "false"),
        ("echo one", "no-such-command"),
    ],
)
def test_a_page_that_does_not_is_found_out(shell: Follower, wrong: tuple[str, str]) -> None:
    assert wrong[0] in CONSOLE
    with pytest.raises(NotAsShownError):
        shell.follow(steps_of(CONSOLE.replace(*wrong)))


def test_dots_stand_for_anything_and_all_else_for_itself() -> None:
    assert is_as_shown("a ... c\n...\nlast", "a b c\nmore\nand more\nlast\n")
    assert not is_as_shown("a ... c\nlast", "a b c\nmore\nlast\n")
    assert not is_as_shown("a.c", "abc")
    assert is_as_shown("", "whatever")
