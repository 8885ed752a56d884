"""Calls of the model, every one of the same shape."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from explainers.base import FloatArray, MalformedModelError

Evaluate = Callable[[FloatArray], FloatArray]
"""(N, F) raw rows to (N, C) outputs, in the model's own batch call; safe to share by threads."""

ROWS_PER_CALL = 1024
"""Enough that a call's own cost (a few ms through pandas and a pipeline) is small beside its rows,
few enough that models which hold a matrix of rows by training rows stay within some 100 MB."""


_on_call: ContextVar[Callable[[], None] | None] = ContextVar("_on_call", default=None)


@contextmanager
def telling_of_calls(on_call: Callable[[], None]) -> Iterator[None]:
    """Within it on_call is told of every call of a model that returned, in this thread.

    One row may take minutes: this is how whoever waits sees that it goes on. An argument of every
    explainer would say the same at nine places.
    """
    token = _on_call.set(on_call)
    try:
        yield
    finally:
        _on_call.reset(token)


class ModelCalls:
    """A model called with (rows_per_call, F) rows each time, and the count of those rows.

    The last bits of a matrix product change with its shape, so calls of one shape, none of which
    mixes two instances, are what makes an instance's numbers the same alone and in a batch. Not
    to be shared between threads: one instance's calls are one object.
    """

    def __init__(self, evaluate: Evaluate, n_outputs: int, rows_per_call: int) -> None:
        self._evaluate = evaluate
        self._n_outputs = n_outputs
        self._rows_per_call = rows_per_call
        self.evaluations = 0

    def __call__(self, rows: FloatArray) -> FloatArray:
        """(M, F) rows to (M, C) outputs; the last call is filled up with the last row."""
        return self.of(len(rows), lambda start, stop: rows[start:stop])

    def of(self, n_rows: int, rows_between: Callable[[int, int], FloatArray]) -> FloatArray:
        """(n_rows, C) outputs of rows that are made one call at a time: rows_between(start, stop).

        An infinite output becomes NaN: there is nothing to attribute either way. Raises
        MalformedModelError for outputs of another shape.
        """
        (outputs,) = self.in_parts(n_rows, rows_between, n_rows) if n_rows else (self._none,)
        return outputs

    def in_parts(
        self, n_rows: int, rows_between: Callable[[int, int], FloatArray], size: int
    ) -> Iterator[FloatArray]:
        """What `of` gives, of the same calls, in consecutive parts of (size, C): whole ones only.

        Each part is the caller's own until the next is asked for; no more than one is kept.
        """
        part, filled = np.empty((size, self._n_outputs)), 0
        for start in range(0, n_rows, self._rows_per_call):
            stop = min(start + self._rows_per_call, n_rows)
            outputs = self._call(rows_between(start, stop))[: stop - start]
            outputs = np.where(np.isfinite(outputs), outputs, np.nan)
            while len(outputs):
                taken = outputs[: size - filled]
                part[filled : filled + len(taken)] = taken
                outputs, filled = outputs[len(taken) :], filled + len(taken)
                if filled == size:
                    yield part
                    filled = 0

    @property
    def _none(self) -> FloatArray:
        return np.empty((0, self._n_outputs))

    def _call(self, rows: FloatArray) -> FloatArray:
        missing = self._rows_per_call - len(rows)
        if missing:
            rows = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
        self.evaluations += len(rows)
        outputs = self._evaluate(rows)
        expected = (len(rows), self._n_outputs)
        if outputs.shape != expected:
            raise MalformedModelError(f"the model gave {outputs.shape} outputs, not {expected}")
        on_call = _on_call.get()
        if on_call is not None:
            on_call()
        return outputs


def rows_called(n_rows: int, rows_per_call: int) -> int:
    """The rows it takes to evaluate n_rows when all calls are full."""
    return -(-n_rows // rows_per_call) * rows_per_call
