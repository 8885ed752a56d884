"""The sample for review: uniform, the same everywhere, of what is explained by now."""

import hmac
import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from decisions import START, decision, final, pending, template

from service.evidence import EvidenceStore
from service.evidence.events import Event, seal

ALWAYS = (START - timedelta(days=1), START + timedelta(days=1))
N = 2500


def rank(request_id: str, key: bytes = b"key") -> bytes:
    return hmac.digest(key, request_id.encode(), "sha256")


def names(store: EvidenceStore, *, size: int = 10**6, key: bytes = b"key") -> list[str]:
    found = store.sample(
        "default", "credit", period=ALWAYS, size=size, rank=lambda name: rank(name, key)
    )
    return [item.request_id for item in found]


def fill(store: EvidenceStore, *events: Event) -> None:
    store.insert([seal(event) for event in events])


def test_only_what_is_explained_by_now_is_drawn(url: str) -> None:
    waiting, ended, broken = (pending(f"request-{n}") for n in ("waits", "ended", "broke"))
    with EvidenceStore.open(url) as store:
        fill(
            store,
            decision("request-here"),
            decision("request-asked-nothing", status=(None, None)),
            decision("request-failed", status=("failed", "inline")),
            decision("request-elsewhere", tenant="other"),
            decision("request-other-model", model=template("other")),
            decision("request-too-late", minute=60 * 25),
            waiting,
            ended,
            broken,
        )
        store.append_final(final(ended))
        store.append_final(final(broken, status="failed", outcome="failed"))
        found = store.sample("default", "credit", period=ALWAYS, size=9, rank=rank)
    assert {item.request_id for item in found} == {"request-here", "request-ended"}
    assert {(item.status, item.lane) for item in found} == {
        ("complete", "inline"),
        ("complete", "queued"),
    }
    assert {item.model_digest for item in found} == {"sha256:" + "0" * 64}


def test_a_sample_is_the_lowest_ranks_whatever_came_when(url: str) -> None:
    ids = [f"request-{n:05d}" for n in range(N)]
    with EvidenceStore.open(url) as store:
        for start in range(0, N, 500):
            # All at one moment, so that pages end between equals.
            fill(store, *(decision(name) for name in reversed(ids[start : start + 500])))
        chosen = names(store, size=50)
        assert chosen == sorted(ids, key=rank)[:50]
        assert names(store, size=20) == chosen[:20]
        assert names(store, size=0) == []
        assert sorted(names(store)) == ids
        fill(store, replace(decision("request-more"), received_at=START + timedelta(hours=1)))
        assert names(store, size=50) == sorted([*ids, "request-more"], key=rank)[:50]


def test_every_request_is_as_likely_to_be_drawn(tmp_path: object) -> None:
    ids, draws, size = [f"request-{n:05d}" for n in range(100)], 400, 10
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        fill(store, *(decision(name) for name in ids))
        counts = Counter(
            name for draw in range(draws) for name in names(store, size=size, key=b"%d" % draw)
        )
    expected = draws * size / len(ids)
    spread = sum((counts[name] - expected) ** 2 for name in ids) / expected
    # Chi-squared with 99 degrees of freedom, less a tenth for drawing without replacement.
    assert abs(spread / 0.9 - 99) < 5 * math.sqrt(2 * 99)
    assert max(counts.values()) < expected + 6 * math.sqrt(expected)
