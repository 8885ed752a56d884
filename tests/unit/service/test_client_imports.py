"""The client stands on httpx and schemas: an application that has it loads nothing else of ours."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import service.client
from service.client import errors

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "service" / "client"
CONVERSIONS = {"numpy", "pandas", "shap"}
HEAVY = CONVERSIONS | {
    "fastapi",
    "numba",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "xgboost",
    "explainers",
}


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_it_imports_httpx_schemas_and_the_standard_library_alone() -> None:
    for file in FOLDER.glob("*.py"):
        names = imported(ast.parse(file.read_text()))
        own = {name for name in names if name.startswith("service.client")}
        packages = {name.partition(".")[0] for name in names - own}
        allowed = {"httpx", "schemas", *sys.stdlib_module_names}
        allowed |= CONVERSIONS if file.name == "explanation.py" else set()
        assert packages <= allowed, file


def test_importing_it_loads_nothing_heavy() -> None:
    program = "import sys, service.client; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "httpx" in loaded
    assert not loaded & HEAVY
    ours = {name for name in done.stdout.split() if name.startswith("service.")}
    assert all(name.startswith("service.client") for name in ours), ours


def test_the_extra_installs_what_it_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["client"] == ["httpx"]


def test_the_drawn_tree_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = ["Exception"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│ ├└─]*)(\w+Error)\b", line):
            depth = len(found[1]) // 4 + 1
            above = [*above[:depth], found[2]]
            drawn[found[2]] = above[depth - 1]
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if name.endswith("Error") and "_" not in name
    }
    assert drawn == {name: kind.__base__.__name__ for name, kind in kinds.items()}
    assert kinds.keys() <= set(service.client.__all__)
