"""Exact interventional Shapley values of models linear in their derived columns."""

import numpy as np

from explainers.base import (
    Background,
    Derivation,
    Engine,
    Explanation,
    FloatArray,
    IntArray,
    Interactions,
    MalformedModelError,
    Method,
    Naming,
    Values,
    room_for_pairs,
)


class LinearExplainer:
    """Each derived column's coefficient times its distance from its mean over the background.

    Exact for any background: a linear model's hybrids average to the model of the averages.
    coefficients (P, C), intercept (C,). Raises MalformedModelError for other shapes. Cost: P * C
    products a row. Source: Lundberg and Lee 2017, corollary 1.
    """

    method: Method = "linear"
    engine: Engine = "closed_form"
    exact: bool = True

    def __init__(
        self,
        coefficients: FloatArray,
        intercept: FloatArray,
        background: Background,
        derivation: Derivation,
        *,
        naming: Naming,
        tolerance: float,
    ) -> None:
        expected = (len(derivation.players), len(naming.outputs))
        if coefficients.shape != expected or intercept.shape != expected[1:]:
            raise MalformedModelError(
                f"coefficients {coefficients.shape} and intercept {intercept.shape} of a model "
                f"with (columns, outputs) {expected}"
            )
        naming.check(background)
        self.tolerance = tolerance
        self._coefficients = coefficients
        self._intercept = intercept
        self._background = background
        self._derivation = derivation
        self._naming = naming
        self._rounds = _rounds(derivation.players)
        derived = derivation(background.rows)
        self._means: FloatArray = derived.mean(axis=0)
        self._base_values = self._sums(self._means[None, :])
        self.output_scale: FloatArray = self._sums(derived).std(axis=0)

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:  # noqa: ARG002 (nothing is drawn)
        """Attribute each output of each row of X, (N, F) raw columns in schema order."""
        return Explanation(
            values=self._values(self._derivation(X)),
            base_values=self._base_values.repeat(len(X), axis=0),
            feature_names=self._naming.features,
            output_names=self._naming.outputs,
            output_space=self._naming.output_space,
            method=self.method,
            engine=self.engine,
            exact=self.exact,
            background_digest=self._background.digest,
        )

    def interactions(self, X: FloatArray, *, seeds: IntArray | None = None) -> Interactions:  # noqa: ARG002 (nothing is drawn)
        """Main effects alone, (N, F, F, C): in a linear model no two columns interact.

        Raises ResultTooLargeError.
        """
        pairs = room_for_pairs(len(X), self._naming)
        explanation = self.explain(X)
        each = np.arange(len(self._naming.features))
        pairs[:, each, each] = explanation.values
        return Interactions(pairs, explanation)

    def against(self, background: Background) -> "LinearExplainer":
        """The same model's explainer over another background, (B, F). Cost: a derivation of it.

        Raises ValueError when the background has another number of columns.
        """
        return LinearExplainer(
            self._coefficients,
            self._intercept,
            background,
            self._derivation,
            naming=self._naming,
            tolerance=self.tolerance,
        )

    def stored_tables(self) -> bytes | None:
        """None: nothing is compiled."""
        return None

    def outputs(self, X: FloatArray) -> FloatArray:
        """(N, C): proves the coefficients against the library's outputs."""
        return self._sums(self._derivation(X))

    def warm_up(self) -> None:
        """Touch what the first call needs."""
        self.explain(self._background.rows[:1])

    def _values(self, derived: FloatArray) -> Values:
        # Elementwise and in a fixed order: a matrix product's bytes change with the batch.
        centred = derived - self._means
        values = np.zeros((len(derived), len(self._naming.features), len(self._naming.outputs)))
        for columns, players in self._rounds:
            values[:, players] += centred[:, columns, None] * self._coefficients[columns]
        return values

    def _sums(self, derived: FloatArray) -> FloatArray:
        sums: FloatArray = (derived[:, :, None] * self._coefficients).sum(axis=1) + self._intercept
        return sums


def _rounds(players: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Derived columns and their players, split so that no player comes twice in a round."""
    order = np.argsort(players, kind="stable")
    ordered = players[order]
    turn = np.arange(len(players)) - np.searchsorted(ordered, ordered)
    return [(order[turn == k], ordered[turn == k]) for k in range(int(turn.max(initial=-1)) + 1)]
