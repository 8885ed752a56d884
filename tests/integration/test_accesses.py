"""Who has looked is written down before anything leaves, and refused where that cannot be."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from commands import explaind
from problems import assert_problem
from servers import Client, wait_until

from service.accesses import MOST_NAMED, Access, AccessFilter, listed, note
from service.errors import StoreAwayError
from service.evidence import StoreUnavailableError

Instance = dict[str, Any]


@pytest.fixture
def record(keyed: Any, rows: list[Instance]) -> str:
    """Alice's."""
    return str(keyed.client("alice").predict(rows[:1]).headers["x-request-id"])


def entries(keyed: Any, **matching: Any) -> list[Any]:
    return list(listed(keyed.live.runtime.evidence.store, AccessFilter(**matching)))


def kinds(keyed: Any, request_id: str) -> list[tuple[str, str]]:
    found = entries(keyed, request_id=request_id)
    return [(each["principal"], each["event_type"]) for each in found]


def test_reads_of_what_another_made_are_written_down_and_own_ones_are_not(
    keyed: Any, record: str
) -> None:
    alice, audit = keyed.client("alice"), keyed.client("audit")
    for _ in range(3):
        assert alice.get(f"/explanations/{record}").status == 200
    assert kinds(keyed, record) == []
    reply = audit.get(f"/explanations/{record}")
    known = {"If-None-Match": reply.headers["etag"]}
    assert audit.get(f"/explanations/{record}", **known).status == 304
    assert audit.get(f"/explanations/{record}/related").status == 200
    assert audit.get(f"/explanations/{record}/events").status == 200
    assert kinds(keyed, record) == [
        ("audit", f"access/{kind}") for kind in ("read", "read", "list", "read")
    ]


def test_lists_and_reviews_are_written_down_with_what_was_asked(keyed: Any) -> None:
    audit: Client = keyed.client("audit")
    audit.get("/explanations?status=complete&limit=3&model=breast_cancer")
    audit.get("/models/breast_cancer/review")
    listing, review = entries(keyed, principal="audit")[-2:]
    assert listing["event_type"] == "access/list"
    assert listing["asked"] == {"limit": 3, "model": "breast_cancer", "status": "complete"}
    assert (review["event_type"], review["model"]) == ("access/review", "breast_cancer")


def test_importances_are_written_down_with_their_days(keyed: Any) -> None:
    audit: Client = keyed.client("audit")
    assert (
        audit.get("/models/breast_cancer/importance?since=2026-01-01&until=2026-01-03").status
        == 200
    )
    last = entries(keyed, principal="audit")[-1]
    assert (last["event_type"], last["model"]) == ("access/importance", "breast_cancer")
    assert (last["since"], last["until"]) == ("2026-01-01", "2026-01-03")


def test_reads_of_the_access_logs_checkpoint_are_written_down_and_of_the_others_not(
    keyed: Any, record: str
) -> None:
    audit: Client = keyed.client("audit")
    assert audit.get(f"/explanations/{record}").status == 200
    for query in ("", "?log=access"):  # a log has none while it is empty
        wait_until(lambda query=query: audit.get(f"/log/checkpoint{query}").status == 200)
    seen = len(entries(keyed, principal="audit"))
    assert audit.get("/log/checkpoint").status == 200
    assert audit.get("/log/consistency").status == 200
    assert audit.get("/log/key?log=access").status == 200
    assert len(entries(keyed, principal="audit")) == seen
    assert audit.get("/log/consistency?log=access&from=1").status == 200
    told = explaind(
        "checkpoint", "--log=access", f"--data-dir={keyed.live.runtime.settings.data_dir}"
    )
    assert told.returncode == 0, told.stderr
    *_, read, compared, printed = entries(keyed)
    assert {each["event_type"] for each in (read, compared, printed)} == {"access/checkpoint"}
    assert (read["principal"], compared["principal"]) == ("audit", "audit")
    assert printed["principal"].startswith("cli:")


def test_refusals_are_counted_by_principal_and_minute_and_ids_are_keyed(
    keyed: Any, record: str
) -> None:
    bob = keyed.client("bob")
    assert bob.get("/explanations").status == 403
    for request_id in (record, record, "unknown-request", "no"):
        assert bob.get(f"/explanations/{request_id}").status == 404
    before = entries(keyed, principal="bob")
    _tell(keyed)
    found = entries(keyed, principal="bob")[len(before) :]
    assert {each["event_type"] for each in found} == {"access/refused"}
    counts: dict[int, int] = {}
    for each in found:
        counts[each["status"]] = counts.get(each["status"], 0) + each["count"]
    assert counts == {403: 1, 404: 4}
    ids = {each for entry in found for each in entry["keyed_ids"]}
    assert len(ids) == 3
    assert all(len(each) == 64 for each in ids)
    _tell(keyed)
    assert len(entries(keyed, principal="bob")) == len(before) + len(found)


def _tell(keyed: Any, until: datetime | None = None) -> None:
    runtime = keyed.live.runtime
    loop = runtime.evidence._access_writer._loop
    telling = runtime.accesses.tell_refusals(until=until)
    asyncio.run_coroutine_threadsafe(telling, loop).result(10)


def test_of_many_unknown_ids_some_are_named_and_all_are_counted(keyed: Any) -> None:
    _tell(keyed)
    before = len(entries(keyed, principal="bob"))
    bob = keyed.client("bob")
    for n in range(MOST_NAMED + 5):
        assert bob.get(f"/explanations/unknown-{n:03}").status == 404
    _tell(keyed)
    told = entries(keyed, principal="bob")[before:]
    assert sum(each["count"] for each in told) == MOST_NAMED + 5
    assert all(len(each["keyed_ids"]) <= MOST_NAMED for each in told)


def test_refusals_of_a_minute_that_goes_on_are_told_later(keyed: Any) -> None:
    _tell(keyed)
    before = len(entries(keyed, principal="bob"))
    began = datetime.now(UTC).replace(second=0, microsecond=0)
    assert keyed.client("bob").get("/explanations/unknown-request").status == 404
    _tell(keyed, until=began)
    assert len(entries(keyed, principal="bob")) == before
    _tell(keyed, until=began + timedelta(minutes=2))
    (told,) = entries(keyed, principal="bob")[before:]
    assert told["count"] == 1


def test_a_listing_of_many_pages_has_each_entry_once(
    keyed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where several were made in one microsecond."""
    store = keyed.live.runtime.evidence.store
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = [
        Access(kind="read", tenant="default", principal="pages", at=at + timedelta(seconds=n // 4))
        for n in range(9)
    ]
    for access in made:
        note(store, access)
    monkeypatch.setattr("service.accesses._PAGE", 3)
    found = [each["event_id"] for each in entries(keyed, principal="pages")]
    assert sorted(found) == sorted(access.event_id for access in made)


def test_what_cannot_be_written_down_is_not_shown(
    keyed: Any, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Sequence[Any]) -> Any:
        raise StoreUnavailableError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(keyed.live.runtime.evidence._access_writer, "_insert", fail)
        audit = keyed.client("audit")
        for path in (f"/{record}", f"/{record}/proof", f"/{record}/related", ""):
            problem = assert_problem(audit.get(f"/explanations{path}"), 503)
            assert problem["type"].endswith(StoreAwayError.code)
        assert keyed.client("alice").get(f"/explanations/{record}").status == 200
    assert kinds(keyed, record) == []


def test_entries_are_durable_before_the_answer_and_share_commits(keyed: Any, record: str) -> None:
    runtime = keyed.live.runtime
    writer = runtime.evidence._access_writer
    caller = runtime.authenticator.caller(f"Bearer {keyed.keys['audit']}")

    async def many() -> float:
        started = time.perf_counter()
        notes = [runtime.accesses.note(caller, "read", record) for _ in range(200)]
        await asyncio.gather(*notes)
        return time.perf_counter() - started

    seconds = asyncio.run_coroutine_threadsafe(many(), writer._loop).result(30)
    assert len(kinds(keyed, record)) == 200
    assert seconds < 5
