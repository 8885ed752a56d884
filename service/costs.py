"""What stored explanations cost, by tenant, model, method and lane.

Read from the records, because metrics have no tenants: a label for each would make a series for
each, on a page that everybody who runs the service may read.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from service.bundles.entries import distinct
from service.evidence import DecisionFilter, EvidenceStore, Record
from service.evidence.tables import events

PAGE = 20
"""Records opened at once: one may have megabytes."""
ENDED = frozenset({"complete", "failed"})


class Account(NamedTuple):
    """To whom a cost is put down."""

    tenant: str
    model: str
    method: str
    lane: str


@dataclass(slots=True)
class Cost:
    """What the explanations of one account took; instances: their rows."""

    explanations: int = 0
    failed: int = 0
    instances: int = 0
    cpu_seconds: float = 0.0
    model_evaluations: int = 0

    def add(self, record: Record, explanation: dict[str, Any]) -> None:
        """One explanation more."""
        provenance: dict[str, Any] = orjson.loads(record.part("provenance"))
        self.explanations += 1
        self.failed += record.status == "failed"
        self.instances += len(orjson.loads(record.decision.part("outputs")))
        self.cpu_seconds += provenance.get("cpu_seconds") or 0.0
        self.model_evaluations += explanation.get("model_evaluations") or 0


@dataclass(slots=True)
class CostReport:
    """Costs by account, and how many explanations of each tenant are not in them: `erased`, and
    `unreadable` without the keys.
    """

    costs: dict[Account, Cost] = field(default_factory=dict)
    unknown: Counter[tuple[str, str]] = field(default_factory=Counter)

    def document(self) -> dict[str, list[dict[str, object]]]:
        """As JSON has it, dearest first."""
        ordered = sorted(self.costs.items(), key=lambda item: -item[1].cpu_seconds)
        lines = [
            {
                **account._asdict(),
                **{name: getattr(cost, name) for name in Cost.__slots__},
                "cpu_seconds": round(cost.cpu_seconds, 7),
            }
            for account, cost in ordered
        ]
        unknown = [
            {"tenant": tenant, "reason": reason, "records": count}
            for (tenant, reason), count in sorted(self.unknown.items())
        ]
        return {"costs": lines, "unknown": unknown}


def cost_report(
    store: EvidenceStore,
    *,
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> CostReport:
    """Of what was received in [since, until) and has ended, of one tenant or of all.

    What was computed and not stored is not in it: quality, replays, jobs whose process ended.
    Cost: every record of that time is opened. Raises StoreUnavailableError.
    """
    report = CostReport()
    for owner in _tenants(store) if tenant is None else [tenant]:
        for ids in _pages(store, owner, DecisionFilter(since=since, until=until), report):
            _add(report, store, owner, ids)
    return report


def _tenants(store: EvidenceStore) -> Sequence[str]:
    with store.reading() as connection:
        return distinct(connection, events.c.tenant)


def _pages(
    store: EvidenceStore, tenant: str, matching: DecisionFilter, report: CostReport
) -> Iterator[list[str]]:
    """Request IDs of ended explanations; erased ones are told of."""
    cursor: str | None = None
    while True:
        page = store.list(tenant, matching=matching, limit=PAGE, cursor=cursor)
        report.unknown[tenant, "erased"] += sum(item.status == "erased" for item in page.items)
        yield [item.request_id for item in page.items if item.status in ENDED]
        cursor = page.next_cursor
        if cursor is None:
            report.unknown = +report.unknown
            return


def _add(report: CostReport, store: EvidenceStore, tenant: str, ids: Sequence[str]) -> None:
    for record in store.records([(tenant, request_id) for request_id in ids]):
        if not isinstance(record, Record):
            report.unknown[tenant, "unreadable"] += 1
            continue
        explanation: dict[str, Any] = orjson.loads(record.part("explanation"))
        lane = str(explanation["lane"]) if record.was_counted else "bulk"
        method = str(explanation.get("method") or "none")
        account = Account(tenant, record.decision.model, method, lane)
        report.costs.setdefault(account, Cost()).add(record, explanation)
