"""Decisions of chosen scores and times, labelled later; a receiver of webhook calls."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import orjson
from decisions import STORED, TEMPLATE
from tellings import told_later

from explainers.base import FloatArray
from service.evidence import (
    DecisionEvent,
    EvidenceStore,
    HeaderTemplate,
    LabelEvent,
    laid_out,
)
from service.uuid7 import uuid7


def predicted(
    predictions: Sequence[object],
    at: datetime,
    *,
    template: HeaderTemplate = TEMPLATE,
    tenant: str = "default",
) -> DecisionEvent:
    payload, parts = laid_out(
        [b'{"answer":', b"1", b',"predictions":', orjson.dumps(list(predictions)), b"}"],
        ["answer", "predictions"],
    )
    return DecisionEvent(
        template=template,
        request_id=uuid7(),
        received_at=at,
        completed_at=at + timedelta(milliseconds=3),
        status=None,
        lane=None,
        payload=payload,
        parts=parts,
        tenant=tenant,
    )


def label_of(about: DecisionEvent, labels: Sequence[object], actor: str = "ann") -> LabelEvent:
    return told_later(about, LabelEvent, {"labels": list(labels)}, actor=actor)


def two_classes(p: float) -> dict[str, object]:
    return {"label": int(p > 0.5), "probabilities": {"0": 1 - p, "1": p}}


def scored(count: int, *, strength: float, seed: int = 0) -> tuple[FloatArray, list[int]]:
    """Probabilities of the positive class, and labels that go with them by that strength."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    log_odds = strength * (2 * labels - 1) + rng.normal(size=count)
    return 1 / (1 + np.exp(-log_odds)), labels.tolist()


def store_labelled(
    store: EvidenceStore,
    at: datetime,
    scores: FloatArray,
    labels: Sequence[int],
    *,
    template: HeaderTemplate = TEMPLATE,
    size: int = 50,
) -> None:
    """Decisions of `size` instances each, a second apart, with their labels."""
    for i in range(0, len(scores), size):
        predictions = [two_classes(float(p)) for p in scores[i : i + size]]
        about = predicted(predictions, at + timedelta(seconds=i // size), template=template)
        assert store.append(about) is STORED
        assert store.append(label_of(about, labels[i : i + size])) is STORED


@dataclass
class Receiver:
    """Takes webhook calls and answers with the next of `statuses`, then with 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.calls]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hooks?team=risk"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
