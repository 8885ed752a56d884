"""What a computing child is made to do in tests; the task says which."""

import ctypes
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from service.compute import NotHereError, OnProgress


def compute(task: bytes, on_progress: OnProgress) -> bytes:
    """Runs `{"do": ..., ...}`; the result is the task's own bytes."""
    order: dict[str, Any] = json.loads(task)
    ACTIONS[order.get("do", "echo")](order, on_progress)
    return task


def echo(task: bytes, _: OnProgress) -> bytes:
    return task


def fail(_task: bytes, _: OnProgress) -> bytes:
    raise ArithmeticError


def _nothing(_order: Mapping[str, Any], _: OnProgress) -> None:
    pass


def _hold(order: Mapping[str, Any], _: OnProgress) -> None:
    """PyDLL keeps the GIL: no other thread of the process runs meanwhile."""
    ctypes.PyDLL(None).usleep(int(1e6 * order["seconds"]))


def _sleep(order: Mapping[str, Any], _: OnProgress) -> None:
    time.sleep(order["seconds"])


def _advance(order: Mapping[str, Any], on_progress: OnProgress) -> None:
    for n in range(order["steps"]):
        time.sleep(order["seconds"])
        on_progress({"done": n + 1, "of": order["steps"]})


def _abort(_order: Mapping[str, Any], _: OnProgress) -> None:
    os.abort()


def _abort_once(order: Mapping[str, Any], _: OnProgress) -> None:
    """The first time only: the file it makes says that it has been."""
    try:
        os.close(os.open(order["file"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.abort()


def _raise(_order: Mapping[str, Any], _: OnProgress) -> None:
    raise ValueError("a message with an input in it")


def _not_here(_order: Mapping[str, Any], _: OnProgress) -> None:
    raise NotHereError("version 3 is not in this registry")


ACTIONS = {
    "echo": _nothing,
    "hold": _hold,
    "sleep": _sleep,
    "advance": _advance,
    "abort": _abort,
    "abort_once": _abort_once,
    "raise": _raise,
    "not_here": _not_here,
}
