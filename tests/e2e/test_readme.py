"""What the README shows is what happens."""

import json
import re
from pathlib import Path
from typing import Any

from servers import WITH_WORKER, explaind, running_server
from typer.main import get_command

from service.cli import app
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _shape(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: _shape(value) for name, value in document.items()}
    return type(document).__name__


def test_the_example_answer_is_the_demo_models_answer(tmp_path: Path) -> None:
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])  # type: ignore[index]
    assert explaind("demo", "--once", "--port", "0", "--data-dir", str(tmp_path)).returncode == 0
    with running_server(tmp_path, env=WITH_WORKER) as server:
        client = server.client()
        sample = client.get("/models/breast_cancer").json()["sample_request"]["instances"]
        answer = client.predict(sample, query="?explain=true&top=3").json()
    assert _shape(answer) == _shape(shown)
    assert answer["predictions"][0]["label"] == shown["predictions"][0]["label"]
    strongest, expected = answer["explanation"]["top"][0][0], shown["explanation"]["top"][0][0]
    assert strongest["feature"] == expected["feature"]
    assert abs(strongest["contribution"] - expected["contribution"]) < 0.01


def test_every_setting_is_documented_and_no_other() -> None:
    documented = set(re.findall(rf"^\| `({PREFIX}\w+)`", README, re.MULTILINE))
    assert documented == {PREFIX + name.upper() for name in Settings.names()}


def test_every_setting_is_a_flag_of_serve() -> None:
    serve: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    assert {parameter.name for parameter in serve.params} == set(Settings.names())


def test_every_command_shown_exists_with_its_options() -> None:
    root = get_command(app)
    lines = re.findall(r"^\$ explaind (.*)$", README, re.MULTILINE)
    assert lines
    for line in lines:
        words = line.split()
        command: Any = root
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_two_commands_of_the_readme_are_the_scripts() -> None:
    for script in re.findall(r"^\$ (scripts/\w+)", README, re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o111
