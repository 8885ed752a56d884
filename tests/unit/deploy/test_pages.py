"""What docs/deployment.md and docs/capacity.md tell the reader to type and to read is there."""

import re
from typing import Any

import pytest
from deployment import ROOT
from typer.main import get_command

from service.cli import app
from service.settings import KEY_ENCRYPTION_KEY, PREFIX, Settings

PAGES = ("deployment.md", "capacity.md", "metrics.md", "cards.md", "narratives.md")


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", text_of(page)):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_settings_named_are_settings(page: str) -> None:
    known = {PREFIX + name.upper() for name in Settings.names()} | {KEY_ENCRYPTION_KEY}
    assert set(re.findall(rf"{PREFIX}\w+", text_of(page))) <= known


@pytest.mark.parametrize("page", PAGES)
def test_files_named_are_in_the_repository(page: str) -> None:
    names = re.findall(r"(?:deploy|scripts|tests)/[\w/.-]*\w", text_of(page))
    made = {"deploy/secrets", "deploy/.env"}
    for name in names:
        assert (ROOT / name).exists() or any(name.startswith(part) for part in made), name


@pytest.mark.parametrize(("page", "least"), [("deployment.md", 9), ("cards.md", 5)])
def test_commands_named_exist_with_their_options(page: str, least: int) -> None:
    text = text_of(page).replace("\\\n", " ")
    found = re.findall(r"(?:^|`|-- |\$ )explaind +([a-z][^`\n]*)", text, re.MULTILINE)
    found += re.findall(r"run --rm .* explaind +(\S.*)", text)
    assert len(found) >= least
    for line in found:
        words = line.split()
        command: Any = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not words or not getattr(command, "commands", {}), line
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
