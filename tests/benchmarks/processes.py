"""Server processes: started, measured and ended by their own id."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY = "serving on "
START_SECONDS = 90.0
STOP_SECONDS = 20.0
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREAD_SETTINGS, "1")


@dataclass(frozen=True)
class Serving:
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of the process, all its threads and its descendants."""
        return sum(_ticks(pid) for pid in family(self.pid)) / os.sysconf("SC_CLK_TCK")

    def cpu_seconds_by_thread(self) -> dict[str, float]:
        """User and system time of each thread the process has now, by its id."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        ticks = {task.name: sum(map(int, _stat(task)[11:13])) for task in tasks}
        return {task: count / os.sysconf("SC_CLK_TCK") for task, count in ticks.items()}


@contextmanager
def running(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path
) -> Iterator[Serving]:
    """A server that has said where it serves, ended afterwards. It runs on the caller's cores."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, **ONE_THREAD, **environment},
        )
    try:
        yield Serving(_wait_for_url(process, log), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if READY in line:
                return line.partition(READY)[2].strip()
        time.sleep(0.02)
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}")


def family(root: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            fields = _stat(folder)
            if fields:
                parents[int(folder.name)] = int(fields[1])
    family = [root]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _ticks(pid: int) -> int:
    """utime, stime and those of children that ended and were waited for."""
    fields = _stat(Path(f"/proc/{pid}"))
    return sum(map(int, fields[11:15])) if fields else 0


def _stat(folder: Path) -> list[str]:
    """What follows the name, of a process or one thread of it."""
    try:
        text = (folder / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
