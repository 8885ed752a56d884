"""The killable child that computes: C code that hangs or aborts takes nothing else with it.

One child works through the tasks it is sent, in order, and while it has none it gets ready for
what may come. Messages are frames of JSON and bytes over
a socket pair; nothing is unpickled.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self

import orjson

from service import processes
from service.collecting import look_rarely
from service.logs import configure_logs, log, place_of

NICENESS = 10
PROGRESS_SECONDS = 0.05
SETTLING_SECONDS = 0.2
"""Without a task for so long, a child gets ready: a task that is on its way goes first."""

LOOK_SECONDS = 5.0
"""Between two looks for what there may be to get ready."""

SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""A child is one processor's work: the last bits of a matrix product depend on the number of
threads, and several children with a thread for each processor would wait for each other.
"""

_HEAD = struct.Struct(">II")

OnProgress = Callable[[Mapping[str, object]], None]
ComputeJob = Callable[[bytes, OnProgress], bytes]
"""What a child does with one task. It tells its progress as facts JSON can hold; what it raises is
an outcome of this task alone.
"""

Prepare = Callable[[], bool]
"""What a child does without a task, if the module of its function has it as `prepare`: one piece
of what tasks will need. False: there is nothing left at the moment.
"""


class NotHereError(Exception):
    """Raised by a ComputeJob whose worker lacks what the task needs; another one may have it.

    kind: of the error for which it refused what it has, None where it has nothing.
    """

    def __init__(self, reason: str, *, kind: str | None = None) -> None:
        super().__init__(reason)
        self.kind = kind


class ChildLostError(Exception):
    """The child ended, or was killed because it made no progress; the message says which."""


class ChildStartError(Exception):
    """The child ended before it was ready: no task's fault."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The current task goes on."""

    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Finished:
    """A task's result, and what computing it took."""

    body: bytes
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Raised:
    """A task that raised: the error's type, and where. Never its message: it may hold inputs."""

    kind: str
    place: str


@dataclass(frozen=True, slots=True)
class NotHere:
    """A task another worker must do; kind: see NotHereError."""

    reason: str
    kind: str | None = None


Reply = Progress | Finished | Raised | NotHere


class _Frames(asyncio.Protocol):
    """Whole frames as they arrive. A stream reader's three awaits a frame would cost more than
    everything else about a job.
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = 0
        while len(self._received) - start >= _HEAD.size:
            head_size, body_size = _HEAD.unpack_from(self._received, start)
            head = start + _HEAD.size
            body, end = head + head_size, head + head_size + body_size
            if end > len(self._received):
                break
            self._frames.append((bytes(self._received[head:body]), bytes(self._received[body:end])))
            start = end
        del self._received[:start]
        if self._frames:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._is_closed = True
        self._wake()

    async def next(self, limit_seconds: float) -> tuple[bytes, bytes]:
        """The next frame. Raises EOFError at the end, TimeoutError after that long."""
        if not self._frames and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(limit_seconds):
                await self._waiter
        if not self._frames:
            raise EOFError
        return self._frames.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Child:
    """A running child, seen from its parent's event loop."""

    def __init__(
        self, process: subprocess.Popen[bytes], frames: _Frames, transport: asyncio.Transport
    ) -> None:
        self._process = process
        self._frames = frames
        self._transport = transport

    @classmethod
    async def start(
        cls,
        function: str,
        *,
        limit_seconds: float,
        niceness: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Return once `module:function` is imported there. niceness: NICENESS by default.

        Raises ChildStartError, also when that takes longer than the limit.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            process = processes.launch(
                [sys.executable, "-m", "service.compute", function, str(descriptor)],
                at_parents_end=signal.SIGKILL,
                niceness=NICENESS if niceness is None else niceness,
                pass_fds=[descriptor],
                environment=SINGLE_THREADED | dict(environment or {}),
            )
        loop = asyncio.get_running_loop()
        transport, frames = await loop.create_connection(_Frames, sock=ours)
        child = cls(process, frames, transport)
        try:
            head, _ = await child._receive(limit_seconds)
        except ChildLostError as error:
            raise ChildStartError(str(error)) from None
        except BaseException:
            await child.kill()
            raise
        if "ready" not in head:
            await child.kill()
            raise ChildStartError(str(head))
        return child

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """It runs, and hears what it is sent."""
        return self._process.poll() is None and not self._transport.is_closing()

    def send(self, tasks: Sequence[bytes]) -> None:
        """Hand over tasks; each gets its replies in turn, unless the child has ended: `receive`
        says so.
        """
        frames = [part for task in tasks for part in (_HEAD.pack(0, len(task)), task)]
        if not self._transport.is_closing():  # uvloop raises then
            self._transport.write(b"".join(frames))

    async def receive(self, limit_seconds: float) -> Reply:
        """The next reply about the first task without a result.

        Raises ChildLostError when the child ended, or gave no sign for so long: then it is killed.
        """
        head, body = await self._receive(limit_seconds)
        if "progress" in head:
            return Progress(head["progress"])
        if "finished" in head:
            return Finished(body, *head["finished"])
        if "not_here" in head:
            return NotHere(*head["not_here"])
        return Raised(*head["raised"])

    async def kill(self) -> int:
        """End it, wherever it is; its exit code."""
        if self._process.poll() is None:
            self._process.kill()
        try:
            return await processes.ended(self._process)
        finally:
            self._transport.abort()  # an event loop may never end over one that is open

    async def _receive(self, limit_seconds: float) -> tuple[dict[str, Any], bytes]:
        try:
            head, body = await self._frames.next(limit_seconds)
            return orjson.loads(head), body
        except TimeoutError:
            await self.kill()
            raise ChildLostError(f"no progress for {limit_seconds:g} s") from None
        except EOFError:
            code = await self.kill()
            raise ChildLostError(_ending(code)) from None


def _ending(code: int) -> str:
    if code >= 0:
        return f"the computing process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the computing process was ended by {name}"


class _Incoming:
    """Bytes from the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    def read(self, size: int) -> bytes:
        """So many bytes. Raises EOFError when the parent has hung up."""
        while len(self._received) < size:
            more = self._connection.recv(1 << 16)
            if not more:
                raise EOFError
            self._received += more
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def comes_within(self, seconds: float) -> bool:
        """Whether there is something to read, or an end, by then."""
        return bool(self._received) or bool(select.select([self._connection], [], [], seconds)[0])


class _Serving:
    """The child's side."""

    def __init__(
        self, function: ComputeJob, prepare: Prepare | None, connection: socket.socket
    ) -> None:
        self._function = function
        self._prepare = prepare
        self._connection = connection
        self._told = 0.0

    def run(self) -> None:
        """Answer task after task until the parent hangs up: then EOFError."""
        self._send({"ready": os.getpid()})
        incoming = _Incoming(self._connection)
        while True:
            if self._prepare is not None:
                self._prepare_until_asked(incoming, self._prepare)
            head_size, task_size = _HEAD.unpack(incoming.read(_HEAD.size))
            incoming.read(head_size)
            self._answer(incoming.read(task_size))

    def _prepare_until_asked(self, incoming: _Incoming, prepare: Prepare) -> None:
        pause = SETTLING_SECONDS
        while not incoming.comes_within(pause):
            try:
                pause = 0.0 if prepare() else LOOK_SECONDS
            except Exception as error:  # noqa: BLE001 - a task that needs it will say so
                log.error("not_prepared", kind=type(error).__name__, place=place_of(error))
                pause = LOOK_SECONDS

    def _answer(self, task: bytes) -> None:
        self._told = started = time.perf_counter()
        cpu_started = time.process_time()
        try:
            result = self._function(task, self._tell)
        except NotHereError as error:
            self._send({"not_here": [str(error), error.kind]})
        except Exception as error:  # noqa: BLE001 - one task's failure is no other's
            self._send({"raised": [type(error).__name__, place_of(error)]})
        else:
            seconds = time.perf_counter() - started
            self._send({"finished": [seconds, time.process_time() - cpu_started]}, result)

    def _tell(self, facts: Mapping[str, object]) -> None:
        if time.perf_counter() - self._told >= PROGRESS_SECONDS:
            self._told = time.perf_counter()
            self._send({"progress": facts})

    def _send(self, head: Mapping[str, object], body: bytes = b"") -> None:
        encoded = orjson.dumps(head)
        self._connection.sendall(_HEAD.pack(len(encoded), len(body)) + encoded + body)


def main(function: str, descriptor: int) -> None:
    """Compute for the parent at the other end of that socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logs()
    look_rarely()
    name, _, attribute = function.partition(":")
    module = import_module(name)
    compute: ComputeJob = getattr(module, attribute)
    prepare: Prepare | None = getattr(module, "prepare", None)
    with socket.socket(fileno=descriptor) as connection:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - what it starts has no part in this
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            _Serving(compute, prepare, connection).run()


if __name__ == "__main__":
    # Not this module's own `main`: functions raise the errors of the module they import.
    import_module("service.compute").main(sys.argv[1], int(sys.argv[2]))
