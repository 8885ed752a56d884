"""What the figures were measured on: cores, load, and the disk under a database."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WRITES = 200
BLOCK = bytes(4096)


@dataclass(frozen=True)
class Disk:
    """One directory: its file system, and what it takes to write 4 KiB durably there."""

    path: str
    file_system: str
    fdatasync_p50_milliseconds: float
    fdatasync_p99_milliseconds: float

    @classmethod
    def of(cls, directory: Path) -> "Disk":
        seconds = np.array(_synced_writes(directory)) * 1000
        p50, p99 = np.percentile(seconds, [50, 99])
        return cls(str(directory), file_system(directory), float(p50), float(p99))

    def __str__(self) -> str:
        return (
            f"{self.path} ({self.file_system}): write 4 KiB + fdatasync "
            f"p50 {self.fdatasync_p50_milliseconds:.3f} ms, "
            f"p99 {self.fdatasync_p99_milliseconds:.3f} ms"
        )


def _synced_writes(directory: Path) -> list[float]:
    path = directory / "fdatasync-probe"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    seconds = []
    try:
        for _ in range(WRITES):
            started = time.perf_counter()
            os.write(descriptor, BLOCK)
            os.fdatasync(descriptor)
            seconds.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()
    return seconds


def file_system(directory: Path) -> str:
    """Type of the file system that holds the directory, such as ext4 or tmpfs."""
    place = directory.resolve()
    found = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, kind, *_ = line.split()
        found[Path(mounted)] = kind
    return next(found[folder] for folder in (place, *place.parents) if folder in found)


def facts() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return (
        f"{os.cpu_count()} x {names[0] if names else platform.machine()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {load()}"
    )


def load() -> str:
    one, five, _ = os.getloadavg()
    return f"load average {one:.2f} (1 min) {five:.2f} (5 min)"
