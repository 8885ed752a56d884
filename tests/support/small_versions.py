"""Small versions of drills, which stand in for them where drills are not run."""

from collections.abc import Iterable
from types import ModuleType

import pytest


def without_drill(items: Iterable[pytest.Item]) -> list[str]:
    """Small versions that name no drill of their own file: with --drills nothing runs for them."""
    return [
        item.nodeid
        for item in items
        if isinstance(item, pytest.Function)
        for mark in item.iter_markers("small_version_of")
        if not _is_drill(item.module, *mark.args)
    ]


def _is_drill(module: ModuleType, name: str) -> bool:
    marks: list[pytest.Mark] = getattr(getattr(module, name, None), "pytestmark", [])
    return any(mark.name == "drill" for mark in marks)
