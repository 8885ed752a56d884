"""The computing child, seen from its parent."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from preparing_jobs import PIECES
from workers import SUPPORT, is_gone

from service.compute import (
    NICENESS,
    SETTLING_SECONDS,
    Child,
    ChildLostError,
    ChildStartError,
    Finished,
    NotHere,
    Progress,
    Raised,
)

LIMIT_SECONDS = 10.0


@pytest.fixture(autouse=True)
def support_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))


@pytest.fixture
async def child() -> AsyncIterator[Child]:
    child = await Child.start("child_jobs:compute", limit_seconds=LIMIT_SECONDS)
    yield child
    await child.kill()


async def test_replies_come_in_the_order_of_the_tasks(child: Child) -> None:
    orders = ["echo", "raise", "not_here", "echo"]
    child.send([f'{{"do":"{order}"}}'.encode() for order in orders])
    kinds = [type(await child.receive(LIMIT_SECONDS)) for _ in orders]
    assert kinds == [Finished, Raised, NotHere, Finished]


async def test_large_tasks_and_results_cross_in_both_directions_at_once(child: Child) -> None:
    tasks = [f'{{"do":"echo","n":{n},"fill":"{"x" * 3_000_000}"}}'.encode() for n in range(8)]
    child.send(tasks)
    for task in tasks:
        reply = await child.receive(LIMIT_SECONDS)
        assert isinstance(reply, Finished)
        assert reply.body == task


async def test_progress_resets_the_limit_and_silence_ends_the_child(child: Child) -> None:
    child.send([b'{"do":"advance","steps":4,"seconds":0.3}', b'{"do":"hold","seconds":600}'])
    heard = [await child.receive(0.9) for _ in range(5)]
    assert [type(reply) for reply in heard] == [Progress] * 4 + [Finished]
    with pytest.raises(ChildLostError, match=r"no progress for 0\.3 s"):
        await child.receive(0.3)
    assert is_gone(child.pid)


@pytest.mark.parametrize("function", ["child_jobs:missing", "no_such_module:f"])
async def test_a_function_that_is_not_there_is_no_tasks_fault(function: str) -> None:
    with pytest.raises(ChildStartError, match="exit code 1"):
        await Child.start(function, limit_seconds=LIMIT_SECONDS)


def autogroup_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/autogroup").read_text().split()


def open_files(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no scheduling by session")
async def test_a_childs_session_gives_way_too(child: Child) -> None:
    assert autogroup_of(child.pid)[-2:] == ["nice", str(NICENESS)]


async def test_a_child_is_nice_and_inherits_nothing_but_its_socket(child: Child) -> None:
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == 10
    assert sum(link.startswith("socket:") for link in open_files(child.pid)) == 1


async def test_a_child_without_a_task_gets_ready_and_a_task_goes_before_that() -> None:
    child = await Child.start("preparing_jobs:compute", limit_seconds=LIMIT_SECONDS)
    child.send([b""])
    ready = [await answered(child)]
    while ready[-1] < PIECES:
        await asyncio.sleep(1.5 * SETTLING_SECONDS)
        child.send([b""])
        ready.append(await answered(child))
    await child.kill()
    assert ready[0] == 0


async def answered(child: Child) -> int:
    reply = await child.receive(LIMIT_SECONDS)
    assert isinstance(reply, Finished)
    return int(reply.body)


async def test_an_end_that_nobody_waits_for_leaves_no_open_connection(child: Child) -> None:
    killing = asyncio.create_task(child.kill())
    await asyncio.sleep(0)
    killing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killing
    assert child._transport.is_closing()
