"""Models without an exact form: registered with an explainer that calls them, and proven."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tables import breast_cancer

from explainers.base import Background, FloatArray, MalformedModelError, UnsupportedModelError
from service.errors import CheckFailedError
from service.registry import Registration, Registry
from service.registry.building import CalledFactory
from service.registry.called import LARGEST_Z, run_oracle
from service.registry.inference import instances_of
from service.registry.registered import check_golden, golden_of, naming_of
from service.registry.work import Options

BACKGROUND_ROWS = 20
SEEDS = np.array([7], dtype=np.int64)


def fitted(n_columns: int) -> tuple[Any, Any, Any]:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = breast_cancer()
    X = X.iloc[:, :n_columns]
    network = MLPClassifier((8,), solver="lbfgs", max_iter=900, alpha=1.0, random_state=0)
    return make_pipeline(StandardScaler(), network).fit(X, y), X, y


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("called")


def registered(root: Path, name: str, n_columns: int) -> Registration:
    model, X, y = fitted(n_columns)
    options = Options(background_rows=BACKGROUND_ROWS)
    return Registry(root).register(name, model, X, y, options=options)


@pytest.fixture(scope="module")
def wide(root: Path) -> Registration:
    return registered(root, "wide", 16)


@pytest.fixture(scope="module")
def narrow(root: Path) -> Registration:
    return registered(root, "narrow", 4)


def test_many_columns_are_sampled_and_the_manifest_says_how(wide: Registration) -> None:
    manifest = wide.model.manifest
    explainer, cost = manifest.explainer, manifest.cost
    assert (explainer.method, explainer.engine, explainer.exact) == (
        "permutation",
        "sampler",
        False,
    )
    assert explainer.calls is not None
    assert explainer.calls.passes >= 2
    assert explainer.reason == "MLPClassifier has no exact explainer"
    assert manifest.proof.oracle_z is not None
    assert manifest.proof.oracle_z <= LARGEST_Z
    assert manifest.proof.oracle_gap is None
    assert cost.evaluate_rows_per_second is not None
    assert cost.explain_model_rows_at_most >= cost.explain_model_rows > 0
    assert cost.explain_row > cost.predict_row
    assert wide.report.warnings == ()
    assert len(wide.report.strongest) == 10
    assert (wide.model.runs_inline, wide.model.is_exact) == (False, False)


def test_few_columns_are_enumerated(narrow: Registration) -> None:
    manifest = narrow.model.manifest
    explainer = manifest.explainer
    assert (explainer.method, explainer.engine, explainer.exact) == ("exact", "enumeration", True)
    assert manifest.proof.oracle_gap is not None
    assert manifest.proof.oracle_gap <= 1e-9
    assert (narrow.model.runs_inline, narrow.model.is_exact) == (False, True)


def test_a_person_reads_whether_values_are_estimates(
    root: Path, wide: Registration, narrow: Registration
) -> None:
    sampled, exact = (
        (root / made.model.name / "1" / "card.md").read_text() for made in (wide, narrow)
    )
    assert "estimated from permutations, with standard errors" in sampled
    assert "standard errors of brute force" in sampled
    assert "Estimated interventional Shapley values" in sampled
    assert "every coalition of columns was evaluated" in exact
    assert "stimated" not in exact
    for text in (sampled, exact):
        assert "model rows" in text
        assert "MLPClassifier has no exact explainer" in text


def test_only_workers_get_the_explainer(root: Path, wide: Registration) -> None:
    serving, working = (
        Registry(root).load("wide", 1),
        Registry(root).load("wide", 1, for_worker=True),
    )
    assert serving.explainer is None
    assert serving.invariants is None
    assert serving.engine == "sampler"
    assert working.explainer is not None
    assert working.invariants is not None
    assert wide.model.explainer is not None
    row = working.background.rows[:1] * 1.01
    found = working.explainer.explain(row, seeds=SEEDS)
    again = wide.model.explainer.explain(row, seeds=SEEDS)
    assert found.values.tobytes() == again.values.tobytes()
    assert found.standard_errors is not None
    served = working.native.predict(row)
    checked = working.invariants.check(found, served.outputs, served.scores)
    assert checked.reasons == (None,)
    np.testing.assert_allclose(working.evaluate(row), served.outputs, rtol=1e-12)


@pytest.mark.parametrize("for_worker", [False, True])
@pytest.mark.parametrize("part", ["base_values", "values", "outputs", "scores"])
def test_golden_values_that_moved_are_found(
    narrow: Registration, part: str, *, for_worker: bool
) -> None:
    model = narrow.model if for_worker else replace(narrow.model, explainer=None, invariants=None)
    rows = model.background.rows[:3]
    golden = golden_of(instances_of(model.schema, rows), rows, model.native, narrow.model.explainer)
    check_golden(model, golden)
    moved = np.array(golden[part])
    moved.flat[0] += 0.01
    golden[part] = moved.tolist()
    if part == "values" and not for_worker:
        check_golden(model, golden)
        return
    with pytest.raises(CheckFailedError, match=part):
        check_golden(model, golden)


def test_a_swapped_background_is_found_without_explaining(root: Path, narrow: Registration) -> None:
    model = replace(narrow.model, explainer=None, invariants=None)
    other = Background.of(model.background.rows[:10])
    golden = orjson.loads((root / "narrow" / "1" / "golden.json").read_bytes())
    check_golden(model, golden)
    with pytest.raises(CheckFailedError, match="base_values"):
        check_golden(replace(model, background=other), golden)


@dataclass(frozen=True, slots=True, eq=False)
class Skewed(CalledFactory):
    """Explains a model in which one column's effect is a hair larger than in the one it calls."""

    def build(self, background: Background, **options: Any) -> Any:
        def skewed(X: FloatArray) -> FloatArray:
            outputs: FloatArray = self.native.evaluate(X) + 1e-3 * X[:, :1] / np.abs(X[:, :1]).max()
            return outputs

        honest = CalledFactory.build(self, background, **options)
        honest._model = replace(honest._model, evaluate=skewed)
        return honest


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_brute_force_finds_values_of_another_model(
    wide: Registration, narrow: Registration, name: str
) -> None:
    model = {"wide": wide, "narrow": narrow}[name].model
    naming = naming_of(model.manifest, model.schema)
    honest = CalledFactory.recorded(model.native, naming, model.manifest.explainer)
    skewed = Skewed(honest.native, honest.naming, honest.method, honest.config)
    rows = model.background.rows[:2] * 1.1
    assert run_oracle(honest, model.background, rows, lambda *_: None).z <= LARGEST_Z
    assert run_oracle(skewed, model.background, rows, lambda *_: None).z > LARGEST_Z


def test_rows_that_differ_in_a_batch_cost_the_explainer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.models.sklearn import SklearnModel

    honest = SklearnModel.evaluate
    monkeypatch.setattr(SklearnModel, "evaluate", lambda model, X: honest(model, X) * (1 + 1e-6))
    made = registered(root, "torn", 4)
    assert made.model.manifest.explainer.method is None
    assert "in a batch" in str(made.model.manifest.explainer.reason)
    assert "`skipped`" in made.report.warnings[-1]
    assert (made.model.runs_inline, made.model.is_exact) == (False, None)


def test_a_mean_output_near_0_is_compared_on_the_scale_of_the_outputs(root: Path) -> None:
    """A standardised target: all rows are the background, so their mean is rounding alone."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, _ = breast_cancer()
    X = X.iloc[:60, :4]
    y = X.sum(axis=1).rank()
    y = (y - y.mean()) / y.std()
    model = make_pipeline(StandardScaler(), PCA(3), LinearRegression()).fit(X, y)
    made = Registry(root).register("centred", model, X, y, options=Options(background_rows=60))
    assert made.model.manifest.explainer.reason is not None
    assert made.model.manifest.explainer.method == "exact"
    for for_worker in (True, False):
        assert Registry(root).load("centred", 1, for_worker=for_worker).name == "centred"
    golden = orjson.loads((Registry(root).layout.folder("centred", 1) / "golden.json").read_bytes())
    golden["base_values"] = (np.array(golden["base_values"]) + 1e-12).tolist()
    check_golden(made.model, golden)
    golden["base_values"] = (np.array(golden["base_values"]) + 1e-6).tolist()
    with pytest.raises(CheckFailedError, match="base_values"):
        check_golden(made.model, golden)


def test_a_model_too_dear_to_sample_says_so(wide: Registration) -> None:
    model = wide.model
    naming = naming_of(model.manifest, model.schema)
    slow = CalledFactory.affordable(model.native, naming, model.background, seconds_per_row=1.0)
    assert slow.method == "permutation"
    with pytest.raises(UnsupportedModelError, match="more than the 10 model rows"):
        slow.build(model.background, config=replace(slow.config, budget_rows=10))


def test_a_manifest_that_does_not_say_how_is_refused(narrow: Registration) -> None:
    model = narrow.model
    entry = model.manifest.explainer.model_copy(update={"calls": None})
    with pytest.raises(MalformedModelError, match="'exact'"):
        CalledFactory.recorded(model.native, naming_of(model.manifest, model.schema), entry)
