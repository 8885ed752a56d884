"""The queue of explanations to compute. It carries work; the evidence store is the truth."""

from service.queue.claims import Claim, JobClaims
from service.queue.client import JobQueue, QueueState, StreamState
from service.queue.errors import QueueAwayError, QueueError, QueueFullError
from service.queue.jobs import PRIORITIES, Job, JobKey, Priority
from service.queue.notices import Notice, Notices, Waiting
from service.queue.server import end

__all__ = [
    "PRIORITIES",
    "Claim",
    "Job",
    "JobClaims",
    "JobKey",
    "JobQueue",
    "Notice",
    "Notices",
    "Priority",
    "QueueAwayError",
    "QueueError",
    "QueueFullError",
    "QueueState",
    "StreamState",
    "Waiting",
    "end",
]
