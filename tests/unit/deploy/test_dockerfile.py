"""What can be told of the Dockerfile from its text."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import ROOT, Instruction, in_build_context, instructions

from service.settings import NO_SETTINGS, PREFIX, Settings

TEXT = (ROOT / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()
INSTRUCTIONS = instructions(TEXT)
LAST = max(one.stage for one in INSTRUCTIONS)
HADOLINT = Path(sys.executable).parent / "hadolint"


def named(name: str, *, stage: int | None = None) -> list[Instruction]:
    return [one for one in INSTRUCTIONS if one.name == name and stage in (None, one.stage)]


def sources(one: Instruction) -> list[str]:
    """What a COPY takes from the repository."""
    words = one.text.split()
    return [] if words[0].startswith("--from") else words[:-1]


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    return listed.stdout.decode().splitlines()


def test_everything_copied_is_in_the_repository_and_let_in() -> None:
    wanted = [name for one in named("COPY") for name in sources(one)]
    let_in = [path for path in tracked() if in_build_context(path, IGNORE)]
    assert wanted
    for name in wanted:
        folder = name.removeprefix("./").rstrip("/")
        assert any(path == folder or path.startswith(folder + "/") for path in let_in), name


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "explaind-data/secret",
        "deploy/secrets/secret",
        "deploy/.env",
        "tests/conftest.py",
        "requirements/run.in",
        "service/__pycache__/app.cpython-311.pyc",
    ],
)
def test_nothing_else_is_let_into_the_build(path: str) -> None:
    assert not in_build_context(path, IGNORE)


def test_every_package_is_installed_from_hashes_of_files_that_are_copied() -> None:
    (install, _) = named("RUN", stage=0)
    files = re.findall(r"-r (\S+)", install.text)
    assert files == ["requirements/uv.txt", "requirements/run.txt", "requirements/build.txt"]
    assert install.text.count("--require-hashes") == install.text.count(" install ")
    for name in files:
        assert in_build_context(name, IGNORE)
        pinned = re.findall(r"^[a-z0-9].*", (ROOT / name).read_text(), re.MULTILINE)
        assert pinned
        assert all("==" in line and line.endswith("\\") for line in pinned), name


def test_it_runs_as_somebody_without_rights_who_cannot_change_it() -> None:
    assert [one.text for one in named("USER", stage=LAST)] == ["10001"]
    (from_build,) = [one for one in named("COPY", stage=LAST) if "--from=build" in one.text]
    assert "--chown" not in from_build.text
    assert "0777" not in TEXT


def test_signals_reach_the_service() -> None:
    for name in ("ENTRYPOINT", "CMD"):
        (one,) = named(name)
        assert isinstance(json.loads(one.text), list)
    (check,) = named("HEALTHCHECK")
    assert json.loads(check.text[check.text.index("[") :])[0] == "python"


def test_kernels_are_looked_for_where_they_are_compiled() -> None:
    built = " ".join(one.text for one in named("ENV", stage=0))
    run = " ".join(one.text for one in named("ENV", stage=LAST))
    for variable in ("NUMBA_CACHE_DIR", "NUMBA_CPU_NAME"):
        (there,) = re.findall(rf"{variable}=(\S+)", built)
        assert re.findall(rf"{variable}=(\S+)", run) == [there]


def test_its_variables_are_settings() -> None:
    names = {name for one in named("ENV") for name in re.findall(rf"({PREFIX}\w+)=", one.text)}
    assert names - NO_SETTINGS <= {PREFIX + name.upper() for name in Settings.names()}


def test_it_is_clean(tmp_path: Path) -> None:
    subprocess.run([HADOLINT, ROOT / "Dockerfile"], check=True)
    bad = tmp_path / "Dockerfile"
    bad.write_text(TEXT.replace('ENTRYPOINT ["explaind"]', "ENTRYPOINT explaind"))
    assert subprocess.run([HADOLINT, bad], check=False, capture_output=True).returncode == 1
