"""What the queue raises; redis-py's errors never leave the package."""


class QueueError(Exception):
    """Base of what this package raises.

    QueueError
    ├── QueueAwayError   nothing was confirmed: server down, slow, out of memory, breaker open
    └── QueueFullError   as many unfinished jobs as the queue may hold
    """


class QueueAwayError(QueueError):
    """The queue's server does not take or give jobs at the moment; retry later."""


class QueueFullError(QueueError):
    """The queue holds as many unfinished jobs as it may; retry later."""
