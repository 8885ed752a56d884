"""What explanations cost, added up from records: each once, to the account it belongs to."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from decisions import START, decision, final, pending, template

from service import costs
from service.costs import Account, Cost, cost_report
from service.evidence import DecisionEvent, EvidenceStore, FinalEvent, laid_out


def with_parts(event: Any, **parts: object) -> Any:
    pieces: list[bytes] = []
    for name, part in parts.items():
        pieces += [b'%s"%s":' % (b"," if pieces else b"{", name.encode()), orjson.dumps(part)]
    payload, ranges = laid_out([*pieces, b"}"], [*parts])
    return replace(event, payload=payload, parts=ranges)


def said(lane: str, evaluations: int = 0, method: str = "linear") -> dict[str, object]:
    return {"lane": lane, "method": method, "model_evaluations": evaluations}


def inline(name: str, cpu: float | None, *, rows: int = 1, **facts: Any) -> DecisionEvent:
    return with_parts(
        decision(name, **facts),
        explanation=said("inline"),
        provenance={"cpu_seconds": cpu},
        outputs=[[0.0]] * rows,
    )


def queued(name: str, *, is_counted: bool = True, **facts: Any) -> DecisionEvent:
    return with_parts(
        pending(name, **facts),
        explanation=said("queued"),
        provenance={"cpu_seconds": None},
        outputs=[[0.0]],
        ask={"is_counted": is_counted},
    )


def ended(event: DecisionEvent, cpu: float, evaluations: int, method: str) -> FinalEvent:
    return with_parts(
        final(event),
        explanation=said("queued", evaluations, method),
        provenance={"cpu_seconds": cpu},
    )


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        yield store


def test_each_explanation_is_put_down_once_to_its_account(store: EvidenceStore) -> None:
    store.append(inline("inline-1", 0.5, rows=3))
    store.append(inline("inline-2", 0.25))
    store.append(inline("other-model", 1.0, model=template("loans")))
    store.append(inline("other-tenant", 2.0, tenant="north"))
    store.append(inline("failed-1", 0.125, status=("failed", "inline")))
    for name, is_counted in (("queued-1", True), ("bulk-1", False)):
        event = queued(name, is_counted=is_counted)
        store.append(event)
        store.append_final(ended(event, 4.0, 640, "permutation"))
    store.append(queued("still-pending"))
    store.append(decision("not-explained", status=(None, None)))
    report = cost_report(store)
    assert report.costs == {
        Account("default", "credit", "linear", "inline"): Cost(3, 1, 5, 0.875, 0),
        Account("default", "loans", "linear", "inline"): Cost(1, 0, 1, 1.0, 0),
        Account("north", "credit", "linear", "inline"): Cost(1, 0, 1, 2.0, 0),
        Account("default", "credit", "permutation", "queued"): Cost(1, 0, 1, 4.0, 640),
        Account("default", "credit", "permutation", "bulk"): Cost(1, 0, 1, 4.0, 640),
    }
    assert not report.unknown
    assert [line["cpu_seconds"] for line in report.document()["costs"]] == [4, 4, 2, 1, 0.875]


def test_it_is_of_one_time_and_tenant_if_asked(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "PAGE", 2)
    for minute in range(7):
        store.append(inline(f"request-{minute}", 1.0, minute=minute))
    store.append(inline("north-1", 8.0, minute=3, tenant="north"))
    since, until = (START + timedelta(minutes=n) for n in (2, 5))
    both = cost_report(store, since=since, until=until)
    assert {a.tenant: c.cpu_seconds for a, c in both.costs.items()} == {"default": 3, "north": 8}
    one = cost_report(store, tenant="north", since=since, until=until)
    assert {a.tenant: c.cpu_seconds for a, c in one.costs.items()} == {"north": 8}
    assert cost_report(store).costs.keys() == both.costs.keys()
    assert sum(cost.explanations for cost in cost_report(store).costs.values()) == 8


def test_a_record_of_before_costs_were_stored_counts_without(store: EvidenceStore) -> None:
    event = with_parts(
        decision("old-1"), explanation=said("inline"), provenance={}, outputs=[[0.0]]
    )
    store.append(event)
    assert list(cost_report(store).costs.values()) == [Cost(1, 0, 1, 0.0, 0)]
