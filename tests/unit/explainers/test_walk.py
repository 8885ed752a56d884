import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from plain_trees import traverse
from random_ensembles import random_rows, random_trees

import explainers
from explainers import warm
from explainers.base import (
    Background,
    Derivation,
    FloatArray,
    IdentityDerivation,
    IntArray,
    MalformedModelError,
    Naming,
    UnsupportedModelError,
)
from explainers.choose import build_explainer
from explainers.exact import interventional_values
from explainers.tree import kernel
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine, TreeExplainer
from explainers.warm import main as compile_all

GAPS = {"walk": 1e-12, "table": 2e-6}
"""Largest error where leaf values are about 1: tables are float32."""

both_engines = pytest.mark.parametrize("engine", GAPS)

VARIANTS = {
    "one output": {},
    "float32": {"float32_inputs": True, "float32_sums": True},
    "an output a tree": {"n_outputs": 3},
    "leaf vectors": {"n_outputs": 3, "vector_leaves": True, "divisor": 4.0},
    "few columns, deep": {"n_columns": 2, "depth": 7},
    "float32 mean": {"divisor": 3.0, "float32_sums": True},
}


@dataclass(frozen=True)
class Shifted:
    """Derived column p is raw column players[p] plus shifts[p]."""

    players: IntArray
    shifts: FloatArray

    def __call__(self, X: FloatArray) -> FloatArray:
        return X[:, self.players] + self.shifts


def explainer_of(
    ensemble: TreeEnsemble,
    background: FloatArray,
    derivation: Derivation | None = None,
    engine: TreeEngine = "auto",
) -> TreeExplainer:
    naming = Naming(
        tuple(f"f{i}" for i in range(background.shape[1])),
        tuple(f"o{c}" for c in range(ensemble.n_outputs)),
        "raw",
    )
    return TreeExplainer(
        ensemble,
        Background.of(background),
        derivation or IdentityDerivation.over(ensemble.n_columns),
        naming=naming,
        tolerance=1e-9,
        engine=engine,
    )


def without_float32_sums(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, float32_sums=False)


def chain(length: int) -> TreeEnsemble:
    """One tree that is 1 where the first `length` columns are all 1."""
    inner, n_nodes = np.arange(length), 2 * length + 1
    left, right, column = (np.full(n_nodes, -1, dtype=np.int32) for _ in range(3))
    left[inner], right[inner], column[inner] = length + inner, inner + 1, inner
    right[length - 1] = 2 * length
    leaf_values = np.zeros((n_nodes, 1))
    leaf_values[2 * length] = 1.0
    no, none = np.zeros(n_nodes, dtype=np.bool_), np.zeros(n_nodes, dtype=np.int32)
    return TreeEnsemble(
        np.zeros(1, dtype=np.int32), left, right, column, np.full(n_nodes, 0.5), no, no, no, no, no,
        none, none, np.zeros(0, dtype=np.uint32), leaf_values, np.zeros(1, dtype=np.int32),
        np.zeros(1), length,
    )  # fmt: skip


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("seed", range(4))
def test_outputs_are_bitwise_those_of_the_documented_rules(
    seed: int, options: dict[str, float]
) -> None:
    ensemble = random_trees(seed, n_trees=9, **options)
    X = random_rows(seed, (200, ensemble.n_columns))
    assert np.array_equal(explainer_of(ensemble, X[:3]).outputs(X), traverse(ensemble, X))


@both_engines
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_brute_force(
    seed: int, options: dict[str, float], engine: TreeEngine
) -> None:
    ensemble = random_trees(seed, **options)
    model = without_float32_sums(ensemble)
    background = random_rows(seed + 100, (20, ensemble.n_columns))
    X = random_rows(seed + 200, (6, ensemble.n_columns))
    values = explainer_of(ensemble, background, engine=engine).explain(X).values
    for x, found in zip(X, values, strict=True):
        expected = interventional_values(lambda Z: traverse(model, Z), x, background)
        np.testing.assert_allclose(found, expected, rtol=0, atol=GAPS[engine])


@both_engines
@pytest.mark.parametrize("size", [1, 63, 64, 65, 128, 129, 200])
def test_backgrounds_of_any_size_give_the_values_of_brute_force(
    engine: TreeEngine, size: int
) -> None:
    ensemble = random_trees(7, depth=5)
    background = random_rows(size, (size, 5))
    x = random_rows(1, (1, 5))
    explanation = explainer_of(ensemble, background, engine=engine).explain(x)
    expected = interventional_values(lambda Z: traverse(ensemble, Z), x[0], background)
    np.testing.assert_allclose(explanation.values[0], expected, rtol=0, atol=GAPS[engine])
    np.testing.assert_allclose(
        explanation.base_values[0], traverse(ensemble, background).mean(axis=0), rtol=1e-14
    )


@both_engines
@pytest.mark.parametrize("seed", range(4))
def test_derived_columns_of_one_raw_column_are_one_player(engine: TreeEngine, seed: int) -> None:
    ensemble = random_trees(seed, n_columns=7, depth=6)
    derivation = Shifted(np.array([2, 0, 0, 1, 2, 2, 0]), np.array([0, 0, 0.5, 0, -0.5, 1, 0]))
    background, X = random_rows(seed, (30, 4)), random_rows(seed + 9, (5, 4))
    values = explainer_of(ensemble, background, derivation, engine=engine).explain(X).values
    for x, found in zip(X, values, strict=True):
        expected = interventional_values(lambda Z: traverse(ensemble, derivation(Z)), x, background)
        np.testing.assert_allclose(found, expected, rtol=0, atol=GAPS[engine])
    assert np.all(values[:, 3] == 0)


@both_engines
def test_a_tree_of_one_leaf_moves_the_base_and_no_value(engine: TreeEngine) -> None:
    ensemble = random_trees(0, depth=0)
    explanation = explainer_of(ensemble, np.zeros((3, 5)), engine=engine).explain(np.ones((2, 5)))
    assert np.all(explanation.values == 0)
    total = ensemble.base[0] + ensemble.leaf_values[ensemble.roots].sum()
    np.testing.assert_allclose(explanation.base_values, total)


@both_engines
def test_a_row_has_the_same_bytes_alone_and_in_a_batch(engine: TreeEngine) -> None:
    explainer = explainer_of(random_trees(3, n_outputs=2), random_rows(1, (65, 5)), engine=engine)
    X = random_rows(2, (40, 5))
    together = explainer.explain(X).values
    alone = np.concatenate([explainer.explain(X[i : i + 1]).values for i in range(len(X))])
    assert together.tobytes() == alone.tobytes()


@both_engines
def test_threads_share_an_explainer(engine: TreeEngine) -> None:
    explainer = explainer_of(random_trees(3, n_trees=40), random_rows(1, (100, 5)), engine=engine)
    X = random_rows(2, (400, 5))
    serial = explainer.explain(X).values
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda rows: explainer.explain(rows).values, np.split(X, 100)))
    assert np.array_equal(np.concatenate(parts), serial)


def test_every_kernel_is_compiled_once() -> None:
    compile_all()
    X = random_rows(2, (4, 5))
    frozen = X.copy()
    frozen.setflags(write=False)
    for options, engine in product(VARIANTS.values(), GAPS):
        ensemble = random_trees(0, **{**options, "n_columns": 5})
        explainer = explainer_of(ensemble, X, engine=engine)
        for rows in (X, np.asfortranarray(X), X.astype(np.float32), frozen, X[::2]):
            explainer.explain(rows)
            explainer.interactions(rows)
            explainer.outputs(rows)
    compiled = {name: made for name, made in vars(kernel).items() if hasattr(made, "signatures")}
    del compiled["logistic_float32"]
    counts = {name: len(made.signatures) for name, made in compiled.items()}
    # A kernel from the cache brings what it calls with it, uncounted.
    assert all(count == 1 or name.startswith("_") for name, count in counts.items()), counts
    assert max(counts.values()) == 1, counts


def test_sixty_four_columns_on_a_path_are_walked_and_one_more_is_refused() -> None:
    explainer = explainer_of(chain(64), np.zeros((3, 64)))
    np.testing.assert_allclose(explainer.explain(np.ones((1, 64))).values, 1 / 64, rtol=1e-12)
    with pytest.raises(UnsupportedModelError, match="64 distinct columns"):
        explainer_of(chain(65), np.zeros((3, 65)))


@pytest.mark.parametrize("right", [0, 1], ids=["a cycle", "a shared node"])
def test_links_that_form_no_trees_are_refused(right: int) -> None:
    ensemble = chain(2)
    broken = ensemble.right.copy()
    broken[1] = right
    with pytest.raises(MalformedModelError, match="no trees"):
        explainer_of(replace(ensemble, right=broken), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("roots", np.array([5], dtype=np.int32)),
        ("roots", np.array([-1], dtype=np.int32)),
        ("tree_output", np.array([1], dtype=np.int32)),
        ("tree_output", np.array([0, 0], dtype=np.int32)),
        ("leaf_values", np.zeros((4, 1))),
        ("is_category", np.ones(5, dtype=np.bool_)),
    ],
)
def test_arrays_that_point_outside_the_model_are_refused(field: str, value: np.ndarray) -> None:
    far = np.full(5, 1, dtype=np.int32)
    with pytest.raises(MalformedModelError):
        replace(chain(2), category_words=far, **{field: value})


def test_rows_of_another_width_are_refused() -> None:
    explainer = explainer_of(chain(3), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        explainer.explain(np.zeros((1, 2)))


def test_players_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 derived columns"):
        explainer_of(chain(3), np.zeros((1, 3)), IdentityDerivation.over(2))
    with pytest.raises(ValueError, match="none of the 2 players"):
        explainer_of(chain(3), np.zeros((1, 2)), Shifted(np.array([0, 1, 2]), np.zeros(3)))


@pytest.mark.parametrize(
    ("asked", "used"), [("auto", "table"), ("table", "table"), ("walk", "walk")]
)
def test_an_ensemble_is_explained_by_the_engine_asked_for(asked: TreeEngine, used: str) -> None:
    naming = Naming(("a", "b"), ("y",), "margin")
    explainer = build_explainer(
        chain(2),
        Background.of(np.zeros((1, 2))),
        IdentityDerivation.over(2),
        naming=naming,
        tolerance=1e-9,
        engine=asked,
    )
    explainer.warm_up()
    explanation = explainer.explain(np.ones((1, 2)))
    assert (explainer.engine, explanation.engine) == (used, used)
    assert explanation.method == "tree_interventional"
    assert explanation.feature_names == naming.features
    np.testing.assert_allclose(explanation.values[0, :, 0], [0.5, 0.5])


def test_output_scale_is_the_spread_over_the_background() -> None:
    explainer = explainer_of(chain(1), np.array([[0.0], [1.0]]))
    assert explainer.output_scale.tolist() == [0.5]


def test_warming_compiles_every_engine() -> None:
    warm.main()
    assert kernel.walk.signatures
    assert kernel.look_up.signatures
    assert kernel.walk_pairs.signatures


def test_importing_the_explainer_does_not_import_numba() -> None:
    code = "import sys, explainers.choose; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": ""})


def test_kernels_work_where_nothing_can_be_cached(tmp_path: Path) -> None:
    package = tmp_path / "explainers"
    source = Path(explainers.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "tree" / "__pycache__").touch()
    code = (
        "from explainers.tree import kernel; import numpy as np;"
        f"assert kernel.__file__.startswith({str(tmp_path)!r});"
        "print(kernel._ones(np.uint64(7)))"
    )
    nowhere = {
        "NUMBA_CACHE_DIR": "/dev/null/x",
        "XDG_CACHE_HOME": "/dev/null/x",
        "HOME": "/dev/null",
    }
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout, result.returncode) == ("3\n", 0), result.stderr
