"""JSON log lines on stderr. Never an input value, never an attribution."""

import logging
import sys
import traceback
from pathlib import Path

import structlog

MOST_FRAMES = 6

log: structlog.stdlib.BoundLogger = structlog.get_logger("explaind")


def configure_logs(level: str = "INFO") -> None:
    """One JSON object a line: time, level, event, then whatever the caller names."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def place_of(error: BaseException) -> str:
    """Where an error comes from, innermost last. Never its message: libraries put values there."""
    frames = traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return " > ".join([*places, type(error).__name__])
