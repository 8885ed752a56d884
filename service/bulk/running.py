"""A table explained chunk by chunk, each a record of its own; what is stored is not done again."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson

from service.auth import Caller
from service.bulk.checking import Accepted, check
from service.bulk.reading import Chunk, Table
from service.bulk.writing import Columns, Explained, Failed, Output, facts_of, output
from service.delivery import job_of
from service.endings import CANCELLED
from service.errors import CheckFailedError, PredictionError, UnavailableError
from service.evidence import ErasedError, EvidenceError, EvidenceLog, Record, WithheldError
from service.logs import log
from service.planning import QUEUED
from service.preparing import Ask, Prepared, run
from service.queue import JobQueue, QueueError
from service.secrets import Keyring
from service.served import ServedModel

IN_FLIGHT = 8
"""Chunks: enough for some workers to be busy, little enough for others' jobs to pass."""

ASK_AGAIN_SECONDS = 15.0
"""Without an announcement for so long the store is looked at, and a lost job queued again."""

RETRY_SECONDS = 2.0
"""Before a job the queue did not take is offered again."""

MOST_SPLITS = 256
"""A chunk that fails is halved to find the rows that are to blame; not for ever, if all are."""

MODEL_FAILED = "the model failed on this row; the log says where"

Found = Explained | Failed


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; rows: at most so many there will be."""

    rows_done: int
    rows: int


@dataclass(slots=True)
class BulkReport:
    """How many rows ended in each status."""

    by_status: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(self.by_status.values())

    def count(self, status: str) -> None:
        """One row more."""
        self.by_status[status] = self.by_status.get(status, 0) + 1


@dataclass(slots=True, eq=False)
class Bulk:
    """One table for one version.

    Request IDs follow from version, policy, file and rows, so that the evidence store knows what
    has been done; they are keyed, so that nobody else can take them first.
    """

    served: ServedModel
    table: Table
    evidence: EvidenceLog
    queue: JobQueue
    keyring: Keyring
    caller: Caller
    chunk_rows: int
    _splits: int = 0
    _has_had_one: bool = False

    def __post_init__(self) -> None:
        explainer = self.served.model.manifest.explainer
        if explainer.method is None:
            raise CheckFailedError(
                f"{self.served.model.name} cannot be explained: {explainer.reason}"
            )

    async def explain_into(self, path: Path, on_progress: Callable[[Progress], None]) -> BulkReport:
        """Write the explanations of all rows, or nothing. Whatever ends it early, what is stored
        by then is not computed again.

        Raises UnavailableError when the evidence store or the file does not work.
        """
        policy = self.served.policy
        has_reasons = policy is not None and policy.reasons is not None
        columns, report = Columns(self.served.model, has_reasons=has_reasons), BulkReport()
        with output(path, columns.schema(self._facts())) as file:
            try:
                async with aclosing(self._chunks()) as chunks:
                    async for found in chunks:
                        _write(file, columns, found, report)
                        on_progress(Progress(report.rows, max(report.rows, self.table.n_rows)))
            except EvidenceError as error:
                raise UnavailableError(f"evidence store: {error}") from error
        return report

    def _facts(self) -> dict[str, object]:
        policy = self.served.policy
        return {
            **facts_of(self.served.model),
            "policy_version": None if policy is None else policy.version,
            "file": {"name": self.table.path.name, "digest": self.table.digest},
            "chunk_rows": self.chunk_rows,
            "subject_column": self.table.subject_column,
        }

    async def _chunks(self) -> AsyncGenerator[list[Found], None]:
        """What became of each chunk, in order, with a few under way."""
        chunks = self.table.chunks(self.chunk_rows)
        under_way: deque[asyncio.Task[list[Found]]] = deque()
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                under_way.append(asyncio.create_task(self._chunk(chunk)))
                if len(under_way) == IN_FLIGHT:
                    yield await under_way[0]
                    under_way.popleft()
            while under_way:
                yield await under_way[0]
                under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _chunk(self, chunk: Chunk) -> list[Found]:
        accepted, refused = await asyncio.to_thread(check, self.served.model.codec, chunk)
        found: list[Found] = [
            Failed([number], "refused", reason) for number, reason in refused.items()
        ]
        if accepted is not None:
            for group in await asyncio.to_thread(self._by_policy, accepted):
                found += await self._explained(group)
        return found

    def _by_policy(self, accepted: Accepted) -> list[Accepted]:
        """The rows policy allows to be explained apart from the others, which would hide them."""
        policy = self.served.policy
        if policy is None or all(rule.allowed for rule in policy.rules):
            return [accepted]
        try:
            scores = self.served.model.native.predict(np.array(accepted.body.codes)).scores
        except Exception:  # noqa: BLE001 - whatever the library raises is met again, row by row
            return [accepted]
        allowed = [
            policy.allows(row, served)
            for row, served in zip(accepted.body.rows, scores.tolist(), strict=True)
        ]
        groups = [[i for i, each in enumerate(allowed) if each is which] for which in (True, False)]
        return [accepted.part(group) for group in groups if group]

    async def _explained(self, accepted: Accepted) -> list[Found]:
        """The rows' records; those of a chunk that fails are tried again in halves."""
        try:
            record = await self._record(accepted)
        except WithheldError as error:
            status = "erased" if isinstance(error, ErasedError) else "failed"
            return [Failed(accepted.numbers, status, str(error))]
        count = len(accepted.numbers)
        if _is_settled(record) or count == 1 or self._splits >= MOST_SPLITS:
            if record is None:
                return [Failed(accepted.numbers, "failed", MODEL_FAILED)]
            return [Explained(accepted.numbers, record)]
        self._splits += 1
        first, second = range(count // 2), range(count // 2, count)
        return [
            *await self._explained(accepted.part(first)),
            *await self._explained(accepted.part(second)),
        ]

    async def _record(self, accepted: Accepted) -> Record | None:
        """The final record of these rows, made if it is not there; None where no prediction is."""
        instances = self.served.model.codec.instances_json(accepted.body.rows)
        key = (self.caller.tenant, self._request_id(accepted, instances))
        record = await self.evidence.record(*key)
        if record is None:
            prepared = await asyncio.to_thread(self._prepare, accepted, instances, key[1])
            if prepared is None:
                return None
            await self.evidence.append(prepared.event)
            record = await self.evidence.record(*key)
            assert record is not None
        return await self._final(record) if record.is_pending else record

    def _request_id(self, accepted: Accepted, instances: bytes) -> str:
        """The same for the same rows of the same file, so that an interrupted run goes on."""
        policy = self.served.policy
        version = None if policy is None else policy.version
        facts: list[object] = [
            self.served.model.digest,
            version,
            self.table.digest,
            accepted.numbers,
        ]
        if accepted.body.subjects is not None:
            facts.append(accepted.body.subjects)
        message = orjson.dumps(facts) + instances
        return "bulk-" + self.keyring.digest(self.caller.tenant, "bulk", message)[:40]

    def _prepare(self, accepted: Accepted, instances: bytes, request_id: str) -> Prepared | None:
        body, kept = self.served.kept(accepted.body, instances)
        ask = Ask(
            request_id=request_id,
            caller=self.caller,
            received_at=datetime.now(UTC),
            body=body,
            instances=kept,
            explain=True,
            top=0,
            fingerprint=self.keyring.digest(self.caller.tenant, "bulk", instances),
            subjects=self.keyring.keyed_subjects(self.caller.tenant, accepted.body.subjects),
            plan=QUEUED,
            priority="low",
            is_counted=False,
        )
        (prepared,) = run(self.served, [ask])
        return None if isinstance(prepared, PredictionError) else prepared

    async def _final(self, record: Record) -> Record:
        """Queue the job and wait for what a worker stores."""
        decision = record.decision
        job = job_of(decision, self.served.model.digest, priority="low")
        async with self.queue.notices.waiting(*job.key) as waiting:
            while record.is_pending:
                seconds = ASK_AGAIN_SECONDS
                try:
                    await self.queue.submit(job)
                except QueueError as error:
                    log.warning("job_not_queued", request_id=job.request_id, reason=str(error))
                    seconds = RETRY_SECONDS
                if not await waiting.wait(seconds):
                    self._warn_of_silence()
                again = await self.evidence.record(*job.key)
                assert again is not None
                record = again
        self._has_had_one = True
        return record

    def _warn_of_silence(self) -> None:
        """Once, and only as long as nothing came at all: later a chunk may just take its time."""
        if not self._has_had_one:
            self._has_had_one = True
            log.warning("no_explanation_yet", hint="is a worker running for this queue?")


def _is_settled(record: Record | None) -> bool:
    """Smaller chunks would end no better, or are not wanted: they would be made anew of what was
    erased from this one.
    """
    if record is None:
        return False
    if record.status != "failed" or record.decision.is_parted:
        return True
    return _reason(record).startswith(CANCELLED)


def _reason(record: Record) -> str:
    return orjson.loads(record.part("explanation"))["reason"] or ""


def _write(file: Output, columns: Columns, found: Sequence[Found], report: BulkReport) -> None:
    lines = [line for part in found for line in columns.lines(part)]
    lines.sort(key=_row)
    for line in lines:
        report.count(str(line["status"]))
    file.write(lines)


def _row(line: dict[str, object]) -> int:
    number = line["row"]
    assert isinstance(number, int)
    return number
