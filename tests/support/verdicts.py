"""What verify.py says of bundles of a small reference log."""

from pathlib import Path
from typing import Any

from reference_log import ReferenceLog

from service.verify import verify_file

SIZE = 13


def reference(size: int = SIZE) -> ReferenceLog:
    log = ReferenceLog()
    for i in range(size):
        log.add(f'{{"age":{30 + i},"name":"Zoë"}}')
    return log


def verdict_on(content: bytes, tmp_path: Path, **asked: str | None) -> dict[str, Any]:
    path = tmp_path / "bundle"
    path.write_bytes(content)
    return verify_file(path, **asked)


def first_problem(verdict: dict[str, Any]) -> tuple[int | None, str]:
    assert verdict["verdict"] == "failed"
    return verdict["findings"][0]["seq"], verdict["findings"][0]["problem"]


def proof_of(log: ReferenceLog, seqs: list[int]) -> dict[str, Any]:
    bundle = log.bundle(seqs)
    own = {name: bundle.manifest[name] for name in ("vkey", "checkpoint")}
    return {"request_id": "request-2", **own, "entries": bundle.entries}


def reference_of_one_request() -> ReferenceLog:
    """Entries 2 and 3 are about one request."""
    log = reference(3)
    log.add("{}", event_type="outcome", request_id="request-2")
    return log
