"""A fitted model as the service stores, loads and explains it, against the model's own library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from explainers.base import (
    Background,
    Explainer,
    Explanation,
    FloatArray,
    IdentityDerivation,
    Level,
    Naming,
)
from explainers.checks import LINK_TOLERANCE, Checked, Invariants
from explainers.choose import build_explainer
from explainers.exact import interventional_values
from explainers.tree.edges import edge_rows
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine
from service.models.base import NativeModel, Served, TreeForm
from service.models.formats import artifact_of_model, load_model
from service.registry.building import ExplainerFactory

Library = Callable[[FloatArray], FloatArray]
"""(N, F) coded rows to (N, C) outputs, by public methods of the fitted model itself."""

EXPLAINED_ROWS = 24
BACKGROUND_ROWS = 16
COMPARED_ROWS = 400
ENGINES_GAP = 1e-6
OUTPUTS_GAP = {True: 2e-6, False: 1e-12}
VALUES_GAP = {True: 5e-6, False: 1e-6}
"""By whether the library sums in float32; tables are float32, so values are seldom closer."""
HALVINGS = 54
ENGINES: tuple[TreeEngine, ...] = ("auto", "walk")


@dataclass(frozen=True)
class Stored:
    """A model after a round through its artifact; rows (N, F) are known rows, coded."""

    native: NativeModel
    rows: FloatArray
    library: Library

    @cached_property
    def truth(self) -> "Truth":
        # Each further column doubles the price of a row.
        n_rows = EXPLAINED_ROWS >> max(0, self.rows.shape[1] - 4)
        background = self.edges(BACKGROUND_ROWS, 2)
        return Truth.of(self.library, self.edges(n_rows, 1), background)

    @property
    def trees(self) -> TreeEnsemble:
        form = self.native.form()
        assert isinstance(form, TreeForm)
        return form.ensemble

    def explainer(self, background: FloatArray) -> Explainer:
        return self.factory().build(Background.of(background))

    def factory(self, reading: TreeEnsemble | None = None) -> ExplainerFactory:
        """As registration makes it; `reading` stands in for our own reading of the trees."""
        n_outputs = self.native.predict(self.rows[:1]).outputs.shape[1]
        outputs = tuple(f"o{c}" for c in range(n_outputs))
        naming = Naming(self.native.columns.raw.names, outputs, self.native.output_space)
        factory = ExplainerFactory.for_model(self.native, naming)
        if reading is None:
            return factory
        return replace(factory, form=TreeForm(reading, factory.form.derivation))

    def edges(self, count: int, seed: int) -> FloatArray:
        """Rows on thresholds and beside them, with gaps, and with rare and unseen levels."""
        rng = np.random.default_rng(seed)
        rows = self.rows[rng.integers(len(self.rows), size=count)].copy()
        form, columns = self.native.form(), self.native.columns
        if isinstance(form, TreeForm) and isinstance(form.derivation, IdentityDerivation):
            rows = edge_rows(
                form.ensemble,
                rows,
                n=count,
                rng=rng,
                missing_allowed=np.array(columns.accepts_missing),
                unseen_allowed=np.zeros(len(columns.raw), dtype=np.bool_),
            )
        elif isinstance(form, TreeForm):
            _move_to_thresholds(rows, form, [i for i, v in enumerate(columns.raw.levels) if not v])
        for column, levels in enumerate(columns.raw.levels):
            codes = [] if levels is None else list(range(len(levels)))
            codes += [-1] * 2 * (columns.unknown[column] == "ignore")
            codes += [np.nan] * 2 * columns.accepts_missing[column]
            moved = rng.random(count) < (0.1 if levels is None else 0.5)
            if codes:
                rows[moved, column] = rng.choice(codes, size=int(moved.sum()))
        return rows


def _move_to_thresholds(rows: FloatArray, form: TreeForm, numeric: list[int]) -> None:
    """Moves half the cells of numeric raw columns to where a derived column crosses a threshold.

    All columns are halved at once: no derived column depends on two of them.
    """
    trees, players = form.ensemble, form.derivation.players
    rng = np.random.default_rng(len(rows))
    below, above = rows.copy(), rows.copy()
    chosen = {}
    for column in numeric:
        nodes = np.flatnonzero(np.isin(trees.column, np.flatnonzero(players == column)))
        known = rows[~np.isnan(rows[:, column]), column]
        if len(nodes) and len(known):
            chosen[column] = rng.choice(nodes, size=len(rows))
            below[:, column], above[:, column] = known.min(), known.max()
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        derived = form.derivation(middle)
        derived = derived.astype(np.float32) if trees.float32_inputs else derived
        for column, nodes in chosen.items():
            is_left = derived[np.arange(len(rows)), trees.column[nodes]] <= trees.threshold[nodes]
            below[is_left, column] = middle[is_left, column]
            above[~is_left, column] = middle[~is_left, column]
    for column in chosen:
        sides = np.where(rng.random(len(rows)) < 0.5, below[:, column], above[:, column])
        rows[:, column] = np.where(rng.random(len(rows)) < 0.5, sides, rows[:, column])


def stored(
    model: Any,
    rows: FloatArray,
    library: Library,
    *,
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, tuple[Level, ...]] | None = None,
) -> Stored:
    native = load_model(artifact_of_model(model), names=names, categories=categories)
    return Stored(native, rows, lambda X: np.asarray(library(X), np.float64).reshape(len(X), -1))


@dataclass(frozen=True)
class Truth:
    """What the library and brute force say of some edge rows against a background of others."""

    rows: FloatArray
    background: FloatArray
    outputs: FloatArray
    base_values: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, library: Library, rows: FloatArray, background: FloatArray) -> "Truth":
        values = np.stack([interventional_values(library, x, background) for x in rows])
        assert np.any(values != 0), "there is nothing to explain"
        base_values = library(background).mean(axis=0)
        return cls(rows, background, library(rows), base_values, values)


def assert_exact(model: Stored) -> None:
    """Served numbers, our reading and our values are those of the library, on every kind of row."""
    assert_served_as_the_library_does(model)
    assert_values_are_brute_force(model)


def assert_rule_matters(model: Stored, misread: TreeEnsemble) -> None:
    """Brute force tells the trees read by another rule, so it would have told ours."""
    with pytest.raises(AssertionError, match="off"):
        assert_values_are_brute_force(model, reading=misread)


def assert_served_as_the_library_does(model: Stored) -> None:
    rows = model.edges(COMPARED_ROWS, 0)
    expected = model.library(rows)
    served = model.native.predict(rows)
    explainer = model.explainer(rows[:2])
    read = explainer.outputs(rows)
    scale = np.maximum(np.abs(expected), expected.std(axis=0)).max(axis=1)
    for outputs in (served.outputs, read):
        gap = float((np.abs(outputs - expected).max(axis=1) / scale).max())
        assert gap <= OUTPUTS_GAP[model.native.is_float32], f"outputs {gap:.2g} off the library"
    link_gap = checked(model, explainer, explainer.explain(rows), served).link.max()
    assert link_gap <= LINK_TOLERANCE, f"scores {link_gap:.2g} off the link of the outputs"


def checked(
    model: Stored, explainer: Explainer, explanation: Explanation, served: Served
) -> Checked:
    """What the service's own invariants say of an explanation."""
    names = model.native.columns.raw.names
    invariants = Invariants(
        explainer.tolerance,
        explainer.output_scale,
        model.factory().unused_columns(len(names)),
        model.native.link,
        names,
    )
    return invariants.check(explanation, served.outputs, served.scores)


def assert_values_are_brute_force(model: Stored, *, reading: TreeEnsemble | None = None) -> None:
    truth, factory = model.truth, model.factory(reading)
    background = Background.of(truth.background)
    explainer = factory.build(background)
    explanation = explainer.explain(truth.rows)
    walked = factory.build(background, engine="walk").explain(truth.rows).values
    allowed = VALUES_GAP[model.native.is_float32]
    scale = float(np.abs(truth.values).max())
    if model.native.is_float32:
        # Sums in float32 are off by units of the outputs, however small the values are.
        units = 8 * float(np.finfo(np.float32).eps) * float(np.abs(truth.outputs).max())
        scale = max(scale, units / allowed)
    for found, expected, most, what in (
        (explanation.values, truth.values, allowed, "values"),
        (explanation.base_values, truth.base_values, allowed, "base values"),
        (explanation.values, walked, ENGINES_GAP, "tables of the walk"),
    ):
        gap = float(np.abs(found - expected).max()) / scale
        assert gap <= most, f"{what} {gap:.2g} off"
    served = Served(truth.outputs, model.native.predict(truth.rows).scores)
    reasons = checked(model, explainer, explanation, served).reasons
    assert reasons == (None,) * len(truth.rows), f"{reasons} off"


def assert_trees_are_exact(
    trees: TreeEnsemble, rows: FloatArray, library: Library, *, unseen: bool = False
) -> None:
    """Values of trees over the rows' own columns, for what is parsed but never served."""
    edges = edge_rows(
        trees,
        rows,
        n=EXPLAINED_ROWS + BACKGROUND_ROWS,
        rng=np.random.default_rng(0),
        missing_allowed=np.ones(trees.n_columns, dtype=np.bool_),
        unseen_allowed=np.full(trees.n_columns, unseen),
    )
    truth = Truth.of(library, edges[:EXPLAINED_ROWS], edges[EXPLAINED_ROWS:])
    naming = Naming(
        tuple(f"f{i}" for i in range(trees.n_columns)),
        tuple(f"o{c}" for c in range(trees.n_outputs)),
        "raw",
    )
    for engine in ENGINES:
        explainer = build_explainer(
            trees,
            Background.of(truth.background),
            IdentityDerivation.over(trees.n_columns),
            naming=naming,
            tolerance=1e-9,
            engine=engine,
        )
        explanation = explainer.explain(truth.rows)
        allowed = VALUES_GAP[trees.float32_sums] * np.abs(truth.values).max()
        for found, expected in (
            (explanation.values, truth.values),
            (explanation.base_values, truth.base_values),
        ):
            gap = np.abs(found - expected).max()
            assert gap <= allowed, f"values or their base {gap:.2g} off"
