"""Time from the command line to a first line of help, and to a service that is ready.

    .venv/bin/python tests/benchmarks/startup.py [--repeat 5]

`serve` starts with the demonstration's model (XGBoost, 100 trees, 30 columns) and is ready when
GET /readyz answers 200. Medians; the kernels are compiled already, as after an installation.
"""

import argparse
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import machine

EXPLAIND = str(Path(sys.executable).with_name("explaind"))
READY = 200
LONGEST_START_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    print(machine.facts())
    with tempfile.TemporaryDirectory(prefix="explaind-startup-") as name:
        demo = ["demo", "--once", "--port", "0", "--data-dir", name]
        subprocess.run([EXPLAIND, *demo], check=True, capture_output=True, timeout=300)
        _print("explaind --help", _help_seconds, repeat)
        _print("explaind serve to /readyz 200", lambda: _ready_seconds(Path(name)), repeat)
    print(machine.load())


def _print(what: str, measure: Callable[[], float], repeat: int) -> None:
    seconds = [measure() for _ in range(repeat)]
    median, fastest, slowest = statistics.median(seconds), min(seconds), max(seconds)
    print(f"{what:<32} median {median:.3f} s (of {repeat}: {fastest:.3f} to {slowest:.3f})")


def _help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([EXPLAIND, "--help"], check=True, capture_output=True, timeout=60)
    return time.perf_counter() - started


def _ready_seconds(data_dir: Path) -> float:
    port = _free_port()
    command = [EXPLAIND, "serve", "--port", str(port), "--data-dir", str(data_dir)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - started > LONGEST_START_SECONDS:
                raise RuntimeError("the service did not become ready")
            time.sleep(0.005)
        return time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == READY
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
