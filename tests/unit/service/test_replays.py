"""What becomes of a process that has replayed a record."""

from datetime import UTC, datetime

import pytest
from workers import SUPPORT

from service import replays
from service.replaying import Recorded
from service.replays import Resting
from service.settings import Settings

RECORDED = Recorded(
    tenant="default",
    request_id="one",
    parent_request_id=None,
    actor="local",
    model="any",
    version=1,
    status=None,
    lane=None,
    received_at=datetime(2026, 1, 1, tzinfo=UTC),
    header=b"{}",
    parts={},
    final=None,
)


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> Resting:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setattr(replays, "FUNCTION", "child_jobs:echo")
    return Resting(Settings())


async def test_it_rests_until_the_end(resting: Resting) -> None:
    assert await resting.replay(RECORDED) == RECORDED.to_bytes()
    (child,) = resting._idle
    await resting.close()
    assert not child.is_alive
    assert resting._idle == {}


async def test_after_the_end_none_rests(resting: Resting) -> None:
    await resting.close()
    assert await resting.replay(RECORDED) == RECORDED.to_bytes()
    assert resting._idle == {}
