"""How much a shadow computes at once."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.rollouts import Shadow


class Asked(SimpleNamespace):
    """A request of so many rows, as far as a batch is made of it."""

    explain = False

    def _replace(self, **_: object) -> "Asked":
        return self


@pytest.mark.parametrize(
    ("rows", "batches"),
    [
        ([1] * 40, [32, 8]),
        ([300, 200, 12, 1], [3, 1]),
        ([1000, 1000, 1], [1, 1, 1]),
        ([500, 13], [1, 1]),
    ],
)
def test_a_batch_has_few_requests_and_few_rows(rows: list[int], batches: list[int]) -> None:
    candidate = SimpleNamespace(model=SimpleNamespace(runs_inline=False))
    tried, nothing = SimpleNamespace(candidate=candidate), SimpleNamespace()
    parts: Any = (tried, nothing, nothing, nothing)
    shadow = Shadow(*parts)
    shadow.waiting.extend([Asked(body=SimpleNamespace(rows=[{}] * n)) for n in rows])  # type: ignore[misc]
    taken = []
    while shadow.waiting:
        taken.append(len(shadow._taken()))
    assert taken == batches
