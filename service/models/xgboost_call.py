"""XGBoost's C function for margins of dense rows, without what its Python layer does around it.

The public `Booster.inplace_predict` costs twice the prediction itself for a handful of rows: it
describes rows and arguments as JSON anew, and looks for a dozen kinds of tables. The handle it
calls through is private to the package, so `DenseMargins.proven` compares the two bit by bit, and
whoever gets None uses the public call.
"""

import ctypes
import json
import math
import threading
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from service.logs import log, place_of

MOST_ROWS = 512
"""Larger batches are split: each thread keeps a buffer of so many rows."""
PROOF_ROWS = (1, 2, 64, MOST_ROWS + 1)

Float32Array = NDArray[np.float32]


class _Buffers(threading.local):
    """One thread's rows, and where the library writes the address and shape of its answer.

    proxy: what the library would make anew for each call, and read the limits of the machine's
    control group from files for it.
    """

    def __init__(self, n_columns: int) -> None:
        from xgboost.core import _ProxyDMatrix

        self.proxy = _ProxyDMatrix()
        self.rows = np.zeros((MOST_ROWS, n_columns))
        self.shape = ctypes.POINTER(ctypes.c_uint64)()
        self.dimensions = ctypes.c_uint64()
        self.margins = ctypes.POINTER(ctypes.c_float)()
        self.answer = tuple(map(ctypes.byref, (self.shape, self.dimensions, self.margins)))
        self.described: dict[int, bytes] = {}

    def interface(self, n_rows: int) -> bytes:
        """The array interface of the first rows, as the library reads it."""
        found = self.described.get(n_rows)
        if found is None:
            interface = {
                "data": [self.rows.ctypes.data, True],
                "shape": [n_rows, self.rows.shape[1]],
                "strides": None,
                "typestr": "<f8",
                "version": 3,
            }
            found = self.described[n_rows] = json.dumps(interface).encode()
        return found


class DenseMargins:
    """Margins of a configured booster; safe to share between threads."""

    def __init__(self, booster: Any, n_columns: int, *, iterations: int) -> None:  # noqa: ANN401  # xgboost.Booster
        from xgboost.core import _LIB

        self._n_columns = n_columns
        self._booster = booster  # keeps the handle alive
        self._handle = booster.handle
        self._function = _LIB.XGBoosterPredictFromDense
        self._buffers = _Buffers(n_columns)
        arguments = {
            "type": 1,
            "training": False,
            "iteration_begin": 0,
            "iteration_end": iterations,
            "missing": math.nan,
            "strict_shape": True,
            "cache_id": 0,
        }
        self._arguments = json.dumps(arguments).encode()

    @classmethod
    def proven(cls, booster: Any, n_columns: int, *, iterations: int) -> Self | None:  # noqa: ANN401  # xgboost.Booster
        """None unless it gives the bits of `Booster.inplace_predict`, missing values included."""
        try:
            margins = cls(booster, n_columns, iterations=iterations)
            rng = np.random.default_rng(0)
            for n_rows in PROOF_ROWS:
                rows = rng.normal(scale=100.0, size=(n_rows, n_columns)).round(1)
                rows[rng.random(rows.shape) < 0.1] = np.nan
                public = booster.inplace_predict(
                    rows,
                    iteration_range=(0, iterations),
                    predict_type="margin",
                    validate_features=False,
                )
                if not np.array_equal(margins(rows), public.reshape(n_rows, -1)):
                    return None
        except Exception as error:  # noqa: BLE001 - whatever a private function that moved raises
            log.info("xgboost_called_publicly", place=place_of(error))
            return None
        return margins

    def __call__(self, X: FloatArray) -> Float32Array:
        """(N, K) margins of (N, F) rows; ValueError for rows of another width, RuntimeError when
        the library refuses.
        """
        # One column would fill all columns of the buffer.
        if X.shape[1] != self._n_columns:
            raise ValueError(f"{X.shape[1]} columns for a booster that reads {self._n_columns}")
        if len(X) > MOST_ROWS:
            starts = range(0, len(X), MOST_ROWS)
            return np.concatenate([self(X[start : start + MOST_ROWS]) for start in starts])
        n_rows, buffers = len(X), self._buffers
        buffers.rows[:n_rows] = X
        failed = self._function(
            self._handle,
            buffers.interface(n_rows),
            self._arguments,
            buffers.proxy.handle,
            *buffers.answer,
        )
        if failed or buffers.dimensions.value != 2 or buffers.shape[0] != n_rows:
            raise RuntimeError("XGBoost refuses the rows")
        n_bytes = n_rows * buffers.shape[1] * np.dtype(np.float32).itemsize
        # The library's memory is the next call's; kernels want an array that can be written.
        copied = ctypes.string_at(buffers.margins, n_bytes)
        return np.frombuffer(copied, np.float32).reshape(n_rows, -1).copy()
