"""What is told of a record later is filed with it."""

from dataclasses import replace
from pathlib import Path

import orjson
from decisions import ANNA, about_one
from sqlalchemy import select

from service.appending import append_about
from service.auth import Caller
from service.evidence import EvidenceLog, FeedbackEvent, laid_out
from service.evidence.tables import events
from service.settings import sqlite_url

FILED = ("tenant", "request_id", "parent_request_id", "received_us", "subjects", "model", "version")


async def test_it_is_filed_as_its_record_and_in_the_name_of_who_tells_it(tmp_path: Path) -> None:
    log = await EvidenceLog.open(sqlite_url(tmp_path / "evidence.db"))
    about = about_one(ANNA, "request-1")
    await log.append(replace(about, tenant="acme", parent_request_id="request-0"))
    decision = await log.get("acme", "request-1")
    assert decision is not None
    content = laid_out([b'{"rating":', b"5", b"}"], ["rating"])
    caller = Caller("bob", "acme", frozenset(), "api_key")
    await append_about(
        log, decision, FeedbackEvent, content, caller=caller, template=decision.template
    )
    with log.store.reading() as connection:
        decided, told = connection.execute(select(events).order_by(events.c.event_type)).all()
    await log.close()
    assert (told.event_type, told.actor, told.payload) == ("feedback", "bob", content[0])
    assert orjson.loads(told.header)["auth_method"] == "api_key"
    assert [told._mapping[name] for name in FILED] == [decided._mapping[name] for name in FILED]
