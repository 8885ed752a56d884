"""Time from the command line to a first line of help, and to a service that is ready; and what a
first explained request takes, beside later ones.

    .venv/bin/python tests/benchmarks/startup.py [--repeat 5]

`serve` starts with the demonstration's model (XGBoost, 100 trees, 30 columns) and is ready when
GET /readyz answers 200. Medians; the kernels are compiled already, as after an installation. The
first request comes after a pause, in which other programs had the processor's caches: so it is
compared with later requests in a row, and with later ones that come after the same pause.
"""

import argparse
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import machine

EXPLAIND = str(Path(sys.executable).with_name("explaind"))
READY = 200
LONGEST_START_SECONDS = 60.0
PAUSE_SECONDS = 0.5
WARM_REQUESTS = 900
COMPARED_REQUESTS = 100
COMPARED_PAUSES = 10


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
        _print_first_requests(Path(name), repeat)
    print(machine.load())


def _print(what: str, measure: Callable[[], float], repeat: int) -> None:
    seconds = [measure() for _ in range(repeat)]
    median, fastest, slowest = statistics.median(seconds), min(seconds), max(seconds)
    print(f"{what:<32} median {median:.3f} s (of {repeat}: {fastest:.3f} to {slowest:.3f})")


def _help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([EXPLAIND, "--help"], check=True, capture_output=True, timeout=60)
    return time.perf_counter() - started


@contextmanager
def _serving(data_dir: Path) -> Iterator[int]:
    """The port of a service that is ready."""
    port = _free_port()
    command = [EXPLAIND, "serve", "--port", str(port), "--data-dir", str(data_dir)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - started > LONGEST_START_SECONDS:
                raise RuntimeError("the service did not become ready")
            time.sleep(0.005)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def _ready_seconds(data_dir: Path) -> float:
    started = time.perf_counter()
    with _serving(data_dir):
        return time.perf_counter() - started


def _print_first_requests(data_dir: Path, repeat: int) -> None:
    starts = [_request_milliseconds(data_dir) for _ in range(repeat)]
    first, in_row, after_pause = map(statistics.median, zip(*starts, strict=True))
    print(f"{'first explained request':<32} median {first:.2f} ms (of {repeat} starts)")
    for what, later in (("requests 900 to 1,000", in_row), ("later, after a pause", after_pause)):
        print(f"{what:<32} median {later:.2f} ms: the first takes {first / later:.2f} times it")


def _request_milliseconds(data_dir: Path) -> tuple[float, float, float]:
    """Of the first request, and medians of later ones: in a row, and each after a pause."""
    with _serving(data_dir) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/models/breast_cancer")
        body = json.dumps(json.loads(connection.getresponse().read())["sample_request"])

        def request() -> float:
            started = time.perf_counter()
            connection.request(
                "POST", "/predict?explain=true", body, {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            response.read()
            seconds = time.perf_counter() - started
            assert response.status == READY
            return seconds * 1000

        def request_after_pause() -> float:
            time.sleep(PAUSE_SECONDS)
            return request()

        first = request_after_pause()
        for _ in range(WARM_REQUESTS):
            request()
        in_row = statistics.median(request() for _ in range(COMPARED_REQUESTS))
        after_pause = statistics.median(request_after_pause() for _ in range(COMPARED_PAUSES))
        return first, in_row, after_pause


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
