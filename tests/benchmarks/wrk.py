"""The load generator: wrk, cycling through prepared requests on its own core."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "result "
SCRIPT = """
local requests, last, next_one = {}, 0, 0
function init(args)
  local headers = {["Content-Type"] = "application/json"}
  for body in io.lines("%s") do
    last = last + 1
    requests[last] = wrk.format("POST", nil, headers, body)
  end
end
function request()
  next_one = next_one %% last + 1
  return requests[next_one]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '%s{"requests": %%d, "microseconds": %%d, "p50": %%d, "p99": %%d, "failures": %%d}\\n',
    summary.requests - e.status, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """One run. requests were answered below 400 (neither side redirects); the rest are failures."""

    requests: int
    seconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    failures: int

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


def check_installed() -> None:
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        sys.exit("this benchmark needs wrk and taskset: apt-get install wrk util-linux")


def write_script(folder: Path, name: str, bodies: Sequence[bytes]) -> Path:
    """A Lua script that sends the bodies one after the other, over and over."""
    lines = folder / f"{name}.jsonl"
    lines.write_bytes(b"".join(body + b"\n" for body in bodies))
    script = folder / f"{name}.lua"
    script.write_text(SCRIPT % (lines, MARK))
    return script


def run(url: str, script: Path, *, connections: int, seconds: int, core: int) -> Load:
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "10s", "-s", str(script), url]
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    line = next(line for line in finished.stdout.splitlines() if line.startswith(MARK))
    found = json.loads(line.removeprefix(MARK))
    return Load(
        found["requests"],
        found["microseconds"] / 1e6,
        found["p50"] / 1000,
        found["p99"] / 1000,
        found["failures"],
    )
