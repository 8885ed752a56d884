"""Processes that do not outlive the one that started them, however it ends.

Run as a program, this file becomes the command it is given: in between, where no thread of the
parent can be in the way, it asks the kernel for a signal at the parent's end.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

POLL_SECONDS = 0.05
AUTOGROUP_TRIES = 20
PR_SET_PDEATHSIG = 1


def launch(
    command: Sequence[str],
    *,
    at_parents_end: signal.Signals,
    niceness: int = 0,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C reaches the parent alone.

    at_parents_end: sent when the calling *thread* ends, on Linux; call this from the thread that
    lives as long as the process. environment: added to this process's own. stderr: a descriptor,
    this process's own if None. Cost: about 15 ms until the command runs.
    """
    become = [sys.executable, "-I", "-S", __file__]
    facts = [str(os.getpid()), str(int(at_parents_end)), str(niceness)]
    return subprocess.Popen(  # noqa: S603 - our own command
        [*become, *facts, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=pass_fds,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, minus the signal's number if one ended it."""
    import asyncio

    # No thread and no signal handler: both would tie this to how the event loop is run.
    while (code := process.poll()) is None:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    return code


async def stop(process: subprocess.Popen[bytes], *, grace_seconds: float) -> int:
    """Ask it to end, insist after the grace; its exit code."""
    import asyncio

    if process.poll() is None:
        process.terminate()
    try:
        async with asyncio.timeout(grace_seconds):
            return await ended(process)
    except TimeoutError:
        process.kill()
        return await ended(process)


def _give_way(niceness: int) -> None:
    """Let others go first. Where the kernel groups processes by session (`man 7 sched`, autogroup),
    a nice value counts within its session alone, so the session gets it too.
    """
    os.nice(niceness)
    for _ in range(AUTOGROUP_TRIES):
        try:
            with open("/proc/self/autogroup", "w") as group:  # noqa: PTH123 - nothing else to import
                group.write(str(niceness))
        except BlockingIOError:  # one such call every 0.1 s on the whole machine
            time.sleep(POLL_SECONDS)
        except OSError:
            return
        else:
            return


def _become(parent: int, death_signal: int, niceness: int, command: list[str]) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it ended before the kernel was asked
    if niceness:
        _give_way(niceness)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
