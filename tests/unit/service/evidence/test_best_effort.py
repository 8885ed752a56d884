"""What is told, counted and given back of an event that store and spool both have in hand."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from decisions import decision
from spools import SpoolTally
from structlog.testing import capture_logs

from service.evidence import (
    AppendOutcome,
    EventRefusedError,
    NothingWrittenError,
    SpoolLimits,
    StoreUnavailableError,
)
from service.evidence.best_effort import BestEffort
from service.evidence.sealing import Sealed
from service.evidence.spool import Spool
from service.evidence.writer import Answer

STORED, CONFLICT = AppendOutcome.STORED, AppendOutcome.CONFLICT
SPOOLED, NOT_KEPT = AppendOutcome.SPOOLED, AppendOutcome.NOT_KEPT
REFUSED, UNTRIED = EventRefusedError("refused"), NothingWrittenError("nothing written")
IN_DOUBT = StoreUnavailableError("in doubt")
Said = AppendOutcome | StoreUnavailableError


class SilentWriter:
    """Answers when it is told to."""

    is_slow = False

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.on_slow: Callable[[], None] = lambda: None

    def submit(self, rows: Sequence[tuple[object, Answer]]) -> None:
        self.answers += [answer for _, answer in rows]

    def call_when_slow(self, callback: Callable[[], None]) -> None:
        self.on_slow = callback

    async def says(self, outcome: Said) -> None:
        (answer,) = self.answers
        if isinstance(outcome, AppendOutcome):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("said", "told", "n_not_kept", "n_given_back"),
    [
        ([("spool", SPOOLED), ("store", REFUSED)], SPOOLED, 0, 0),
        ([("store", REFUSED), ("spool", SPOOLED)], NOT_KEPT, 1, 0),
        ([("store", REFUSED), ("spool", UNTRIED)], NOT_KEPT, 1, 1),
        ([("spool", UNTRIED), ("store", REFUSED)], NOT_KEPT, 1, 1),
        ([("spool", IN_DOUBT), ("store", REFUSED)], NOT_KEPT, 1, 0),
        ([("spool", UNTRIED), ("store", UNTRIED)], NOT_KEPT, 1, 1),
        ([("spool", UNTRIED), ("store", IN_DOUBT)], NOT_KEPT, 1, 0),
        ([("store", UNTRIED), ("spool", SPOOLED)], SPOOLED, 0, 0),
        ([("store", STORED), ("spool", UNTRIED)], STORED, 0, 0),
        ([("store", CONFLICT), ("spool", UNTRIED)], CONFLICT, 0, 1),
        ([("store", CONFLICT), ("spool", IN_DOUBT)], CONFLICT, 0, 0),
    ],
)
async def test_what_has_been_told_of_an_event_is_not_taken_back(
    tmp_path: Path,
    said: Sequence[tuple[str, Said]],
    told: AppendOutcome,
    n_not_kept: int,
    n_given_back: int,
) -> None:
    writers: dict[str, Any] = {"store": SilentWriter(), "spool": SilentWriter()}
    given_back: list[Sealed] = []
    tally = SpoolTally()
    best_effort = BestEffort(
        writers["store"],
        writers["spool"],
        Spool(SpoolLimits(tmp_path / "spool")),
        give_back=given_back.extend,
        observer=tally,
    )
    answer: Answer = asyncio.get_running_loop().create_future()
    with capture_logs() as lines:
        best_effort.submit([(Sealed(decision()), answer)])
        writers["store"].on_slow()
        for name, outcome in said:
            await writers[name].says(outcome)
    assert await answer is told
    assert len(given_back) == n_given_back
    assert tally.counts == Counter({"not kept": n_not_kept} if n_not_kept else {})
    assert [line["event"] for line in lines].count("evidence_not_kept") == n_not_kept
