"""A wall clock that a test moves under a whole process, its libraries and its children.

The process calls its C library as always; the library's answer is moved before it returns
(shifted_clock.c, compiled where the test runs). Nothing in the product knows of it.
"""

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shifted_clock.c")


@dataclass(frozen=True)
class ShiftedClock:
    """For processes started with `env`."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "ShiftedClock":
        """Needs a C compiler, `cc`."""
        folder.mkdir()
        clock = cls(folder)
        clock.shift(0)
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(clock._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        return clock

    @property
    def _library(self) -> Path:
        return self.folder / "shifted_clock.so"

    @property
    def _file(self) -> Path:
        return self.folder / "shift"

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(self._file)}

    def shift(self, seconds: int) -> None:
        """From now on the clock is that far ahead of the real one."""
        content = struct.pack("=q", seconds)
        if self._file.exists():
            with self._file.open("r+b") as file:  # mapped: it must stay the same file
                file.write(content)
        else:
            self._file.write_bytes(content)
