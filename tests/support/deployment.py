"""The deployment's files, read: YAML documents, and the Dockerfile's instructions."""

import fnmatch
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
KEDA = DEPLOY / "kubernetes" / "overlays" / "keda"

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """The YAML documents of a file."""
    return list(yaml.safe_load_all(path.read_text()))


@cache
def manifests(folder: Path) -> dict[tuple[str, str], Document]:
    """What a folder's kustomization.yaml lists in this folder, by kind and name."""
    (listed,) = documents(folder / "kustomization.yaml")
    files = [folder / name for name in listed["resources"] if not name.startswith("..")]
    found = [document for file in files for document in documents(file)]
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


def values_of(text: str) -> dict[str, str]:
    """The variables of an env file without quotes or comments."""
    return dict(line.split("=", 1) for line in text.splitlines())


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile."""

    stage: int
    name: str
    text: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile without here-documents."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in filter(str.strip, re.sub(r"\\\n", " ", "\n".join(lines)).splitlines()):
        name, _, rest = line.strip().partition(" ")
        stage += name == "FROM"
        found.append(Instruction(stage, name, rest.strip()))
    return found


def in_build_context(path: str, ignore: str) -> bool:
    """Whether a .dockerignore lets this file of the repository into the build; the last line that
    matches it, or a folder above it, decides.
    """
    is_in = True
    parts = path.split("/")
    for line in filter(None, ignore.splitlines()):
        pattern, is_back = line.removeprefix("!"), line.startswith("!")
        if pattern.startswith("**/"):
            matches = any(fnmatch.fnmatchcase(part, pattern[3:]) for part in parts)
        else:
            depth = pattern.count("/") + 1
            matches = fnmatch.fnmatchcase("/".join(parts[:depth]), pattern)
        if matches:
            is_in = is_back
    return is_in
