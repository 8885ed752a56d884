"""When Python looks for cycles among objects: rarely, for next to nothing here makes any."""

import gc

YOUNG_OBJECTS = 10_000
"""Between two looks. Python's own 700 would be one look a tick of a busy service, and a tenth of
the time that importing the libraries takes.
"""


def look_rarely() -> None:
    """Call it first in a process: imports make objects by the hundred thousand."""
    gc.set_threshold(YOUNG_OBJECTS)


def pass_over_what_stays() -> None:
    """Never look at what there is now. Libraries and models are a million objects that stay: going
    through them again and again would stop the service for 0.1 s at a time.
    """
    gc.collect()
    gc.freeze()
