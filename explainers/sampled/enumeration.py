"""Exact interventional Shapley values of any model, by all coalitions of few columns."""

import numpy as np

from explainers.base import (
    Background,
    Engine,
    Explanation,
    FloatArray,
    IntArray,
    Interactions,
    Method,
    Naming,
    TooManyColumnsError,
    room_for_pairs,
)
from explainers.exact import coalitions_at_once, enumerate_interactions, enumerate_shapley, play
from explainers.sampled.called import CalledExplainer, CalledModel
from explainers.sampled.calls import ROWS_PER_CALL, Evaluate, ModelCalls, rows_called
from explainers.sampled.walks import differing

MOST_COLUMNS = 12
"""Of one row that are enumerated: 4,096 coalitions."""


class EnumerationExplainer(CalledExplainer):
    """Every coalition of a row's varying columns, evaluated on every background row.

    A column varies if some background row differs from the row in it; the others get exactly 0.
    rows_per_call: shape of every call of the model (see `ModelCalls`). Cost: 2^K * B model rows a
    row, for K varying columns.
    """

    method: Method = "exact"
    engine: Engine = "enumeration"
    exact: bool = True

    def __init__(
        self,
        evaluate: Evaluate,
        background: Background,
        *,
        naming: Naming,
        tolerance: float,
        rows_per_call: int = ROWS_PER_CALL,
    ) -> None:
        model = CalledModel(evaluate, background, naming, rows_per_call)
        super().__init__(model, tolerance=tolerance)

    def cost(self, n_rows: int = 1) -> int:
        """Model rows that n_rows take: an upper bound, for rows all of whose columns vary."""
        n_background_rows, n_columns = self._model.background.rows.shape
        return n_rows * enumeration_rows(n_columns, n_background_rows, self._model.rows_per_call)

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:  # noqa: ARG002 (nothing is drawn)
        """Attribute each output of each row of X, (N, F) raw columns in schema order.

        Raises TooManyColumnsError, before the model is called, where more than 12 columns vary.
        """
        values = np.zeros((len(X), *self._value_shape))
        varying = [self._varying(x) for x in X]
        evaluations = 0
        for i, (x, columns) in enumerate(zip(X, varying, strict=True)):
            calls = self._model.calls()
            values[i, columns] = enumerate_shapley(self._game(x, columns, calls), len(columns))
            evaluations += calls.evaluations
        return self._explanation(values, evaluations)

    def interactions(self, X: FloatArray, *, seeds: IntArray | None = None) -> Interactions:  # noqa: ARG002 (nothing is drawn)
        """Split the values of each row of X into main effects and pairs of columns.

        Raises ResultTooLargeError and TooManyColumnsError before the model is called.
        """
        pairs = room_for_pairs(len(X), self._model.naming)
        values = np.zeros((len(X), *self._value_shape))
        varying = [self._varying(x) for x in X]
        evaluations = 0
        for i, (x, columns) in enumerate(zip(X, varying, strict=True)):
            calls = self._model.calls()
            game = self._game(x, columns, calls)
            values[i, columns] = enumerate_shapley(game, len(columns))
            pairs[i][np.ix_(columns, columns)] = enumerate_interactions(game, len(columns))
            evaluations += calls.evaluations
        return Interactions(pairs, self._explanation(values, evaluations))

    def against(self, background: Background) -> "EnumerationExplainer":
        """The same model's explainer over another background, (B, F). Cost: B model rows.

        Raises ValueError when the background has another number of columns.
        """
        return EnumerationExplainer(
            self._model.evaluate,
            background,
            naming=self._model.naming,
            tolerance=self.tolerance,
            rows_per_call=self._model.rows_per_call,
        )

    @property
    def _value_shape(self) -> tuple[int, int]:
        return len(self._model.naming.features), len(self._model.naming.outputs)

    def _varying(self, x: FloatArray) -> IntArray:
        columns = np.flatnonzero(differing(x, self._model.background.rows).any(axis=0))
        if len(columns) > MOST_COLUMNS:
            raise TooManyColumnsError(
                f"the row differs from the background in {len(columns)} columns: all coalitions "
                f"of at most {MOST_COLUMNS} are enumerated"
            )
        return columns

    def _game(self, x: FloatArray, columns: IntArray, calls: ModelCalls) -> FloatArray:
        return play(
            calls, x, self._model.background.rows, [columns[i : i + 1] for i in range(len(columns))]
        )

    def _explanation(self, values: FloatArray, evaluations: int) -> Explanation:
        return self._model.explanation(
            values, method=self.method, engine=self.engine, model_evaluations=evaluations
        )


def enumeration_rows(n_columns: int, n_background_rows: int, rows_per_call: int) -> int:
    """Model rows that a row of n_columns takes, or of the most that are enumerated."""
    coalitions, at_once = 1 << min(n_columns, MOST_COLUMNS), coalitions_at_once(n_background_rows)
    whole, rest = divmod(coalitions, at_once)
    return whole * rows_called(at_once * n_background_rows, rows_per_call) + rows_called(
        rest * n_background_rows, rows_per_call
    )
