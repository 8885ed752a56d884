"""Commands run to their end, in processes forked from one that has imported what they need."""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock

_ONE_AT_A_TIME = Lock()


def explaind(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Like `servers.explaind`, without the seconds in which Python imports libraries.

    tests/e2e starts commands as users do.
    """
    with NamedTemporaryFile() as output, NamedTemporaryFile() as errors, _ONE_AT_A_TIME:
        asked = {
            "arguments": arguments,
            "environment": {**os.environ, **(env or {})},
            "directory": str(Path.cwd()),
            "output": output.name,
            "errors": errors.name,
        }
        code = _answer(json.dumps(asked))
        said = [Path(file.name).read_text() for file in (output, errors)]
    return subprocess.CompletedProcess(["explaind", *arguments], code, *said)


def _answer(line: str) -> int:
    process = _forking()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@cache
def _forking() -> subprocess.Popen[str]:
    """Started with the first command, and ended with this process."""
    program = Path(__file__).with_name("forking.py")
    process = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    return process
