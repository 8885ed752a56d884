"""Interventional Shapley values of any model, estimated from antithetic permutation pairs."""

from collections.abc import Iterable
from dataclasses import dataclass

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
    UnsupportedModelError,
    Values,
    room_for_pairs,
)
from explainers.sampled.called import CalledExplainer, CalledModel, checked_seeds
from explainers.sampled.calls import ROWS_PER_CALL, Evaluate, ModelCalls, rows_called
from explainers.sampled.pairs import PairWalks, pair_rows
from explainers.sampled.strata import LEAST_PAIRS, StratifiedMean
from explainers.sampled.walks import Walks


@dataclass(frozen=True, slots=True)
class PermutationConfig:
    """How much is sampled: part of what a version's explanations mean, so frozen with it.

    passes: planned first; a pass is one antithetic pair from every background row. They are
    doubled until there are 32 pairs, since the standard error is a sample's too. While the
    largest standard error of an output exceeds `target`, relative to the larger of the sum of
    |values| and the outputs' standard deviation over the background, the passes are doubled, as
    far as a row's calls of the model stay within budget_rows even if it differs from all
    background rows in all columns. rows_per_call: shape of every call. Raises ValueError.
    """

    passes: int = 8
    target: float = 0.005
    budget_rows: int = 1_000_000
    rows_per_call: int = ROWS_PER_CALL

    def __post_init__(self) -> None:
        if self.passes < 2:
            raise ValueError(f"no standard error from {self.passes} passes: at least 2")
        if self.target < 0 or self.budget_rows < 1 or self.rows_per_call < 1:
            raise ValueError(f"budget and rows per call from 1, target from 0: {self}")

    def stages(self, n_columns: int, n_background_rows: int) -> tuple["Stage", ...]:
        """Where to stop, ascending; empty where the first is beyond the budget."""
        a_pass = 2 * max(n_columns - 1, 0) * n_background_rows
        stages: list[Stage] = []
        passes, done, model_rows = self.passes, 0, self.rows_per_call
        while passes * n_background_rows < LEAST_PAIRS:
            passes *= 2
        while True:
            model_rows += rows_called((passes - done) * a_pass, self.rows_per_call)
            if model_rows > self.budget_rows:
                return tuple(stages)
            stages.append(Stage(passes, model_rows))
            if not a_pass:
                return tuple(stages)
            passes, done = 2 * passes, passes

    def first_stage(self, n_columns: int, n_background_rows: int) -> "Stage":
        """Of `stages`; UnsupportedModelError where the budget allows none."""
        stages = self.stages(n_columns, n_background_rows)
        if stages:
            return stages[0]
        raise UnsupportedModelError(
            f"{self.passes} passes over {n_background_rows} background rows of {n_columns} columns "
            f"take more than the {self.budget_rows} model rows allowed for a row: take "
            "fewer background rows, or allow more"
        )

    def pair_rows(self, n_columns: int, n_background_rows: int) -> int:
        """Model rows of a row's interactions, all of whose columns vary, by the passes planned
        first; UnsupportedModelError where they exceed the budget.
        """
        passes = self.first_stage(n_columns, n_background_rows).passes
        taken = rows_called(pair_rows(n_columns, n_background_rows, passes), self.rows_per_call)
        if taken <= self.budget_rows:
            return taken
        raise UnsupportedModelError(
            f"the interactions of {n_columns} varying columns take {taken} model rows, more than "
            f"the {self.budget_rows} allowed for a row"
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """A planned size: so many passes, which with all before take at most so many model rows."""

    passes: int
    model_rows: int


class PermutationExplainer(CalledExplainer):
    """Each column's gain, averaged over drawn orders, from the background rows to the row.

    A pass starts from every background row once, and walks to the explained row in a drawn order
    of the columns and in its reverse; the pairs of a background row are a stratum of their own, so
    that what differs between background rows adds nothing to the standard error. The pair is
    exact wherever no more than two columns interact. Values of a row add up to its output less
    the base value however few orders are drawn.

    A row's numbers are a function of the row, its seed and the configuration alone: see
    `ModelCalls`. Raises UnsupportedModelError when not even the first planned size is within the
    budget. Sources: Castro et al. 2009; Mitchell et al. 2022, section 3 (antithetic pairs).
    """

    method: Method = "permutation"
    engine: Engine = "sampler"
    exact: bool = False

    def __init__(
        self,
        evaluate: Evaluate,
        background: Background,
        *,
        naming: Naming,
        tolerance: float,
        config: PermutationConfig | None = None,
    ) -> None:
        self.config = config or PermutationConfig()
        n_rows, n_columns = background.rows.shape
        self.config.first_stage(n_columns, n_rows)
        self._stages = self.config.stages(n_columns, n_rows)
        model = CalledModel(evaluate, background, naming, self.config.rows_per_call)
        super().__init__(model, tolerance=tolerance)

    def cost(self, n_rows: int = 1) -> tuple[int, int]:
        """Model rows that n_rows take at most: stopping at the first planned size, and at the last.

        Less for rows that equal background rows in some columns.
        """
        return n_rows * self._stages[0].model_rows, n_rows * self._stages[-1].model_rows

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        """Attribute each output of each row of X, (N, F) raw columns in schema order.

        seeds: (N,) from 0 to below 2^53, each row's own; all 0 when not given. Cost: `cost`, and
        memory for the outputs of one pass and of the background rows' gains.
        """
        drawn = checked_seeds(seeds, len(X))
        naming = self._model.naming
        values = np.empty((len(X), len(naming.features), len(naming.outputs)))
        errors = np.empty_like(values)
        evaluations = 0
        for i, (x, seed) in enumerate(zip(X, drawn.tolist(), strict=True)):
            calls = self._model.calls()
            sample = self._sampled(x, seed, calls)
            values[i], errors[i] = sample.mean, sample.standard_error
            evaluations += calls.evaluations
        return self._explanation(values, errors, drawn, evaluations)

    def interactions(self, X: FloatArray, *, seeds: IntArray | None = None) -> Interactions:
        """Split the values of each row of X into main effects and pairs of columns, estimated.

        The values they split come from the same draws, which are others than those of `explain`.
        seeds as there. Cost: 2 K (K - 1) model rows a background row and pass, for K varying
        columns, an odd K counting as one more; as many passes as are planned first for values.
        Raises, before the model is called, ResultTooLargeError, and UnsupportedModelError where a
        row costs more than the configuration's budget.
        """
        drawn = checked_seeds(seeds, len(X))
        pairs = room_for_pairs(len(X), self._model.naming)
        pair_errors = np.zeros_like(pairs)
        values = np.zeros(pairs.shape[:2] + pairs.shape[3:])
        errors = np.zeros_like(values)
        walks = [self._pair_walks(x) for x in X]
        evaluations = 0
        for i, (walk, seed) in enumerate(zip(walks, drawn.tolist(), strict=True)):
            if not len(walk.columns):
                continue
            calls = self._model.calls()
            cells = np.ix_(walk.columns, walk.columns)
            sample = walk.sampled(seed, calls, self._model.starts)
            pairs[i][cells], pair_errors[i][cells] = sample.matrix
            values[i, walk.columns] = sample.values.mean
            errors[i, walk.columns] = sample.values.standard_error
            evaluations += calls.evaluations
        explanation = self._explanation(values, errors, drawn, evaluations)
        return Interactions(pairs, explanation, pair_errors)

    def against(self, background: Background) -> "PermutationExplainer":
        """The same model's explainer over another background, (B, F). Cost: B model rows.

        Raises ValueError when the background has another number of columns,
        UnsupportedModelError when it is too large for the budget.
        """
        return PermutationExplainer(
            self._model.evaluate,
            background,
            naming=self._model.naming,
            tolerance=self.tolerance,
            config=self.config,
        )

    def _pair_walks(self, x: FloatArray) -> PairWalks:
        background_rows = self._model.background.rows
        walks = PairWalks(x, background_rows, self._stages[0].passes)
        self.config.pair_rows(len(walks.columns), len(background_rows))
        return walks

    def _explanation(
        self, values: Values, errors: Values, seeds: IntArray, evaluations: int
    ) -> Explanation:
        return self._model.explanation(
            values,
            method=self.method,
            engine=self.engine,
            model_evaluations=evaluations,
            standard_errors=errors,
            seeds=seeds,
        )

    def _sampled(self, x: FloatArray, seed: int, calls: ModelCalls) -> StratifiedMean:
        background_rows = self._model.background.rows
        walks = Walks(x, background_rows)
        bits = np.random.Philox(key=seed)
        end = calls(x[None, :])[0]
        known = np.vstack([self._model.starts, end])
        jump = np.ptp(known, axis=0)
        sample = StratifiedMean(
            walks.can_vary,
            len(end),
            rounding=self.tolerance * np.abs(known).max(axis=0),
            jump=jump,
        )
        for stage in self._stages:
            n_passes = stage.passes - sample.passes
            # A bit generator's raw stream is the same in every numpy; what shuffles is not.
            drawn = bits.random_raw(n_passes * background_rows.size)
            places = walks.places(drawn.reshape(n_passes, *background_rows.shape))
            for place, reached in zip(places, self._walked(walks, places, calls), strict=True):
                sample.add(walks.gains(place, reached, self._model.starts, end))
            if not walks.hybrids_per_pass or self._is_enough(sample, jump):
                break
        return sample

    def _walked(self, walks: Walks, places: IntArray, calls: ModelCalls) -> Iterable[FloatArray]:
        """(hybrids_per_pass, C) outputs pass by pass: all together may be gigabytes."""
        size = walks.hybrids_per_pass
        if not size:
            return [np.empty((0, len(self._model.naming.outputs)))] * len(places)
        n_rows = len(places) * size
        return calls.in_parts(n_rows, lambda start, stop: walks.hybrids(places, start, stop), size)

    def _is_enough(self, sample: StratifiedMean, jump: FloatArray) -> bool:
        if np.isfinite(self.config.target):
            # What never varied is looked at twice; and of an output that was the same everywhere
            # nothing is known of what may have been missed, so that all of the budget is used.
            is_first = sample.passes == self._stages[0].passes
            if np.any(sample.is_flat & (is_first | (jump == 0))):
                return False
        largest = sample.standard_error.max(axis=0)
        scale = np.maximum(np.abs(sample.mean).sum(axis=0), self.output_scale)
        # Numbers that are not finite do not become so by more passes; any error will do where the
        # target is infinite, also of a model that is constant (scale 0).
        with np.errstate(invalid="ignore"):
            return not bool(np.any(largest > self.config.target * scale))
