"""Lists and samples without the explanations that policy had made and nobody asked for."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from decisions import START, decision, final, pending
from disposals import ERASURE

from service.disposal import erase
from service.evidence import Among, DecisionEvent, DecisionFilter, EvidenceStore
from service.evidence.events import FinalEvent

PERIOD = (START - timedelta(days=1), START + timedelta(days=1))
TOLD = {"predicted", "asked-again"}
ALL = TOLD | {"nobody-asked", "says-nothing"}
"""The last one's header does not say who asked, as before version 3 of the database."""


def child(request_id: str, ask: bytes | None) -> DecisionEvent:
    return replace(pending(request_id, ask=ask), parent_request_id="predicted")


def ended(event: DecisionEvent) -> FinalEvent:
    return replace(final(event), parent_request_id=event.parent_request_id)


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(url) as store:
        store.append(decision("predicted"))
        children = [
            child("asked-again", b'{"priority":"high"}'),
            child("nobody-asked", b'{"priority":"low"}'),
            child("says-nothing", None),
        ]
        for each in children:
            store.append(each)
            store.append_final(ended(each))
        yield store


def listed(store: EvidenceStore, unasked_of: Collection[str] | None, **which: str) -> set[str]:
    matching = DecisionFilter(unasked_of=unasked_of, **which)  # type: ignore[arg-type]
    first = store.list("default", matching=matching, limit=2)
    rest = store.list("default", matching=matching, cursor=first.next_cursor)
    both = rest.items if first.next_cursor is None else (*first.items, *rest.items)
    return {item.request_id for item in both}


@pytest.mark.parametrize(
    ("unasked_of", "names"),
    [(None, ALL), ({"credit"}, ALL), ({"other"}, TOLD), ((), TOLD)],
)
def test_only_of_some_models_is_listed_what_nobody_asked_for(
    store: EvidenceStore, unasked_of: Collection[str] | None, names: set[str]
) -> None:
    assert listed(store, unasked_of) == names
    assert listed(store, unasked_of, status="complete") == names
    assert listed(store, unasked_of, parent="predicted") == names - {"predicted"}


@pytest.mark.parametrize(("with_unasked", "names"), [(True, ALL), (False, TOLD)])
def test_a_sample_can_leave_it_out(
    store: EvidenceStore, names: set[str], *, with_unasked: bool
) -> None:
    found = store.sample(
        *("default", "credit"),
        period=PERIOD,
        size=9,
        rank=str.encode,
        among=Among(with_unasked=with_unasked),
    )
    assert {item.request_id for item in found} == names


def test_what_is_still_pending_or_erased_is_left_out_too(store: EvidenceStore) -> None:
    store.append(replace(child("waits", b'{"priority":"low"}'), parent_request_id="elsewhere"))
    assert listed(store, None, status="pending") == {"waits"}
    assert listed(store, (), status="pending") == set()
    assert erase(store, [("default", "nobody-asked")], ERASURE).erased == 1
    assert listed(store, None, status="erased") == {"nobody-asked"}
    assert listed(store, (), status="erased") == set()
