"""A process that has imported what commands need, and forks one for each line it reads.

Each command has a process, standard streams and an environment of its own, as if it had been
started; only the seconds of imports are had once. A line is a JSON object: arguments, environment,
directory, output, errors. The answer is a line with the exit code.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

LIMIT_SECONDS = 300
"""After which a command is killed."""

IMPORTED = (
    *("numpy", "pandas", "sqlalchemy", "pyarrow.parquet", "numba", "xgboost", "sklearn.pipeline"),
    *("service.cli", "service.app", "service.registry.work", "service.gate", "service.bundles"),
)


def serve() -> None:
    """Until the pipe is closed."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a child copies what its collector looks at
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asked = json.loads(line)
            become(asked)
            end(run(asked["arguments"]))
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


def become(asked: dict[str, Any]) -> None:
    """Take the streams, the environment and the directory of a command."""
    for number, path in enumerate((os.devnull, asked["output"], asked["errors"])):
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    signal.alarm(LIMIT_SECONDS)


def run(arguments: list[str]) -> int:
    """The exit code of a command."""
    from service.__main__ import main

    sys.argv = ["explaind", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:  # noqa: BLE001 - as Python itself would show it
        traceback.print_exc()
        return 1
    return 0


def end(code: int) -> NoReturn:
    """As Python ends, without a second for taking apart each module that was imported."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
