"""Servers that a test may end, and the whole service around them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from heavy_drills import StartStack, running_stack
from heavy_stack import Stack
from valkey_server import Valkey, running_valkey


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartStack]:
    with ExitStack() as opened:

        def start(*parts: Any, **given: Any) -> Stack:
            return opened.enter_context(running_stack(tmp_path, *parts, **given))

        yield start
