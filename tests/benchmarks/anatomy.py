"""Where the microseconds of one request go: a sampled profile of the live server under load.

    .venv/bin/python tests/benchmarks/anatomy.py [--seconds 10] [--connections 16]

Serves the model of serving.py with durable evidence on the first core; wrk and the sampler have
the second. py-spy (`pip install py-spy`) says what each thread is doing, the kernel how much CPU
time each thread has had, and a server that only echoes what HTTP itself costs.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import machine
import serving
import wrk
from processes import Serving, running

RATE = 200
LOOP = "run_server"
HTTP = "HTTP: uvicorn, httptools, uvloop, sockets"
OTHERS = "other threads: commit, places in the log, keys"
PARTS = {
    HTTP: ("RequestResponseCycle.send",),
    "predict: the library's own call": ("XGBoostModel.predict",),
    "explain: tables": ("TreeExplainer.explain",),
    "check: invariants": ("Invariants.check",),
    "explanation and answer as JSON": ("_prepare",),
    "seal: compress, encrypt, header, commitment": ("Sealer.seal",),
    "validate the body, fingerprint": ("PredictService._ask",),
    "hand over to and from the writer": ("GroupWriter.submit", "GroupWriter._resolve"),
    "batching": ("Batcher._flush", "Batcher.submit"),
    "metrics": ("count_success", "TalliedHistogram.observe", "TalliedCounter.inc"),
    "request ID, host, authorization, query": ("Edge.__call__",),
}
"""Name to functions: a sample belongs to the first whose function is on its stack, else to HTTP."""

ECHO = """
import sys
import uvicorn
from service.protocol import GuardedProtocol
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4000")]}
async def echo(scope, receive, send):
    await receive()
    await send(HEAD)
    await send({"type": "http.response.body", "body": bytes(4000)})
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"serving on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
options = {"http": GuardedProtocol, "lifespan": "off", "log_config": None, "access_log": False}
Server(uvicorn.Config(echo, host="127.0.0.1", port=0, **options)).run()
"""


def main() -> None:
    options = _options()
    wrk.check_installed()
    if shutil.which("py-spy") is None:
        sys.exit("this benchmark needs py-spy: pip install py-spy")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this benchmark needs two cores: one for the server, one for wrk")
    print(machine.facts())
    with tempfile.TemporaryDirectory(prefix="explaind-anatomy-", dir=options.directory) as name:
        folder = Path(name)
        stage = serving.set_up(folder, cores[-1], options)
        os.sched_setaffinity(0, {cores[0]})
        with serving.ours(stage, folder) as server:
            print(machine.Disk.of(folder))
            requests, cpu, samples = _profile(server, stage, options)
        floor = _echo(stage, options)
    _print(requests, cpu, samples, floor)
    print(machine.load())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--directory", help="where the durable database lies (default: TMPDIR)")
    return parser.parse_args()


def _profile(
    server: Serving, stage: serving.Stage, options: argparse.Namespace
) -> tuple[int, dict[str, float], Counter[str]]:
    """Requests answered, CPU seconds by thread, and samples by part; both in runs of their own,
    because the sampler disturbs what it looks at.
    """
    _load(server, stage, options, seconds=1)
    before = server.cpu_seconds_by_thread()
    load = _load(server, stage, options, seconds=options.seconds)
    after = server.cpu_seconds_by_thread()
    with _sampled(server, stage, options.seconds) as file:
        _load(server, stage, options, seconds=options.seconds + 1)
    spent = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
    return load.requests, spent, _by_part(file.read_text())


def _load(
    server: Serving, stage: serving.Stage, options: argparse.Namespace, *, seconds: int
) -> wrk.Load:
    return wrk.run(
        server.url + serving.PATHS["predict+explain"],
        stage.scripts[serving.OURS],
        connections=options.connections,
        seconds=seconds,
        core=stage.core_of_wrk,
    )


@contextmanager
def _sampled(server: Serving, stage: serving.Stage, seconds: int) -> Iterator[Path]:
    file = stage.folder / "samples"
    command = ["taskset", "-c", str(stage.core_of_wrk), "py-spy", "record"]
    command += ["--pid", str(server.pid), "--duration", str(seconds), "--rate", str(RATE)]
    command += ["--function", "--format", "raw", "--output", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield file
    process.wait(seconds + 30)


def _by_part(text: str) -> Counter[str]:
    """Samples of the event loop's thread by part; other threads are not looked into."""
    samples: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        functions = [frame.partition(" (")[0] for frame in stack.split(";")]
        if LOOP in functions:
            samples[_part_of(functions)] += int(count)
    return samples


def _part_of(functions: list[str]) -> str:
    for part, names in PARTS.items():
        if any(name in functions for name in names):
            return part
    return HTTP


def _echo(stage: serving.Stage, options: argparse.Namespace) -> float:
    """CPU seconds a request of a server that reads a request and answers with 4 kB."""
    command = [sys.executable, "-c", ECHO]
    with running(command, environment={}, log=stage.folder / "echo.log") as server:
        _load(server, stage, options, seconds=1)
        before = server.cpu_seconds()
        load = _load(server, stage, options, seconds=options.seconds)
        return (server.cpu_seconds() - before) / load.requests


def _print(requests: int, cpu: dict[str, float], samples: Counter[str], floor: float) -> None:
    loop = max(cpu, key=lambda thread: cpu[thread])
    total = sum(cpu.values()) / requests * 1e6
    others = total - cpu[loop] / requests * 1e6
    print(f"\n{'CPU us of one request':<49} {total:>7.0f}")
    per_sample = cpu[loop] / requests / samples.total() * 1e6
    for part in PARTS:
        print(f"  {part:<47} {samples[part] * per_sample:>7.1f}")
    print(f"  {OTHERS:<47} {others:>7.1f}")
    print(f"for scale: uvicorn echoing as many bytes           {floor * 1e6:>6.1f}")


if __name__ == "__main__":
    main()
