"""Refuse files over 400 lines and functions over 40, but for the listed reasons."""

import ast
import subprocess
import sys
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 40
LISTED = {
    "explainers/tree/kernel.py": "numba kernels: flat loops, and all of them in one file because a "
    "cached function keeps the old code of a callee in another",
    "service/cli/serve.py": "a parameter for each setting, which is how its flags are made",
    "service/verify.py": "one file that anybody can copy, with nothing of ours beside it",
}


def main() -> int:
    """Print what is too long; the exit code says whether anything was."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    findings = [finding for name in listed.stdout.split() for finding in _check(Path(name))]
    for finding in findings:
        print(finding, file=sys.stderr)  # noqa: T201
    return 1 if findings else 0


def _check(path: Path) -> list[str]:
    if str(path) in LISTED or not path.exists():
        return []
    text = path.read_text()
    lines = text.count("\n")
    found = [f"{path}: {lines} lines, at most {FILE_LINES}"] if lines > FILE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    return found


if __name__ == "__main__":
    sys.exit(main())
