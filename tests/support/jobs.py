"""Queue entries for tests."""

from service.queue import Job, Priority


def job(request_id: str = "r-1", *, priority: Priority = "high", version: int = 3) -> Job:
    return Job(
        tenant="default",
        request_id=request_id,
        model="credit",
        version=version,
        digest="sha256:" + "0" * 64,
        priority=priority,
        received_us=1_772_366_400_000_007,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )
