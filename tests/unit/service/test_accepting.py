"""Connections that arrive while the event loop is busy."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable

import pytest
import uvloop

from service import accepting
from service.accepting import Acceptor

BUSY_SECONDS = 0.005
COUNT = 60


class Counting(asyncio.Protocol):
    turns: list[int]

    def __init__(self, turns: list[int], turn: list[int]) -> None:
        self.turns, self._turn = turns, turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.turns.append(self._turn[0])
        transport.close()


def compute() -> None:
    """What a loaded service does in one turn of its loop."""
    end = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < end:
        pass


async def turns_taken(listen: Callable[[socket.socket, Callable[[], Counting]], object]) -> int:
    """How many turns of a busy loop it takes until all connections that wait are made."""
    turns: list[int] = []
    turn = [0]
    with socket.create_server(("127.0.0.1", 0), backlog=COUNT) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(COUNT)]
        found = listen(listener, lambda: Counting(turns, turn))
        server = await found if asyncio.iscoroutine(found) else found
        while len(turns) < COUNT:
            compute()
            turn[0] += 1
            await asyncio.sleep(0)
        server.close()  # type: ignore[attr-defined]
        await server.wait_closed()  # type: ignore[attr-defined]
    for client in clients:
        client.close()
    return turns[-1] - turns[0]


def test_all_that_wait_are_taken_in_a_few_turns_of_a_busy_loop() -> None:
    assert uvloop.run(turns_taken(Acceptor)) < 5


def test_uvloops_own_server_takes_one_a_turn() -> None:
    """Once this fails, `service.accepting` is not needed any more."""

    async def own(listener: socket.socket, make: Callable[[], Counting]) -> object:
        return await asyncio.get_running_loop().create_server(make, sock=listener)

    assert uvloop.run(turns_taken(own)) >= COUNT - 1


class Telling(asyncio.Protocol):
    def __init__(self, made: asyncio.Event) -> None:
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.set()
        transport.close()

    def shutdown(self) -> None:
        """It has closed."""


class Staying(asyncio.Protocol):
    is_told = False

    def shutdown(self) -> None:
        self.is_told = True


def test_a_connection_that_was_being_opened_when_it_closed_is_told_too() -> None:
    """Those that are open by then uvicorn tells itself."""
    made: list[Staying] = []

    def make() -> Staying:
        made.append(Staying())
        return made[-1]

    async def serve() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            acceptor = Acceptor(listener, make)
            with socket.create_connection(listener.getsockname()):
                acceptor._accept()
                acceptor.close()
                await acceptor.wait_closed()

    uvloop.run(serve())
    assert [one.is_told for one in made] == [True]


class Exhausted(socket.socket):
    """A listener of a process that has no descriptor left, the first few times."""

    refusals = 3

    def accept(self) -> tuple[socket.socket, object]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_a_process_without_descriptors_takes_connections_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.01)

    async def serve() -> None:
        with Exhausted() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            made = asyncio.Event()
            acceptor = Acceptor(listener, lambda: Telling(made))
            with socket.create_connection(listener.getsockname()):
                async with asyncio.timeout(10):
                    await made.wait()
            acceptor.close()
            await acceptor.wait_closed()

    uvloop.run(serve())
