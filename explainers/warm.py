"""Compiles every kernel into the cache: `python -m explainers.warm`."""

import numpy as np

from explainers.base import Background, IdentityDerivation, Naming
from explainers.checks import Invariants
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine, TreeExplainer
from explainers.tree.kernel import round_to_float32, strongest


def main() -> None:
    """Explain one row of a model of one split with every engine, and its interactions."""
    engines: tuple[TreeEngine, ...] = ("table", "walk")
    for engine in engines:
        explainer = TreeExplainer(
            _stump(),
            Background.of(np.array([[0.0], [1.0]])),
            IdentityDerivation.over(1),
            naming=Naming(("column",), ("output",), "raw"),
            tolerance=1e-9,
            engine=engine,
        )
        explainer.warm_up()
    explainer.interactions(np.zeros((1, 1)))
    _check(explainer)


def _check(explainer: TreeExplainer) -> None:
    row = np.zeros((1, 1))
    invariants = Invariants(
        explainer.tolerance,
        explainer.output_scale,
        np.zeros(0, dtype=np.int64),
        "identity",
        ("column",),
    )
    invariants.check(explainer.explain(row), explainer.outputs(row), explainer.outputs(row))
    strongest(row, 1)
    round_to_float32(row)


def _stump() -> TreeEnsemble:
    no = np.zeros(3, dtype=np.bool_)
    none = np.zeros(3, dtype=np.int32)
    return TreeEnsemble(
        roots=np.zeros(1, dtype=np.int32),
        left=np.array([1, -1, -1], dtype=np.int32),
        right=np.array([2, -1, -1], dtype=np.int32),
        column=np.array([0, -1, -1], dtype=np.int32),
        threshold=np.array([0.5, 0.0, 0.0]),
        missing_left=no,
        nan_is_zero=no,
        zero_is_missing=no,
        is_category=no,
        member_left=no,
        category_start=none,
        category_words=none,
        category_bits=np.zeros(0, dtype=np.uint32),
        leaf_values=np.array([[0.0], [0.0], [1.0]]),
        tree_output=np.zeros(1, dtype=np.int32),
        base=np.zeros(1),
        n_columns=1,
    )


if __name__ == "__main__":
    main()
