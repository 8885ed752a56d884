"""Measured quality: exact explanations score high, wrong and unsteady ones low, what has none says
why.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import pytest
from called_families import CALLED
from families import FAMILIES

from explainers.base import Background, Explainer, Explanation, FloatArray, IntArray
from service.explaining import explain_rows
from service.quality import Findings, Sample, is_sample, measure, measuring
from service.registry import RegisteredModel, Registry
from service.registry.work import Options

ROWS = {"mixed_catboost": 3}
"""Where one takes 0.1 s to explain; else 12."""

ADDITIVE = ("linear", "logistic")
NAMES = (*ADDITIVE, "wine_xgboost", "mixed_lightgbm", "gappy_catboost", "mixed_catboost")


@dataclass(frozen=True)
class Explained:
    """A version, and samples of rows of its background as they would be stored."""

    model: RegisteredModel
    samples: list[Sample]


@pytest.fixture(scope="module", params=NAMES)
def explained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Explained:
    """A multi-class one, with missing values and categories, linear, and one only called."""
    return explained_by(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    return explained_by("linear", tmp_path_factory)


def explained_by(name: str, folders: pytest.TempPathFactory) -> Explained:
    family = {**FAMILIES, **CALLED}[name]()
    registry = Registry(folders.mktemp("quality"))
    options = Options(background_rows=40, **family.options)
    model = registry.register(name, family.model, family.X, family.y, options=options).model
    X = model.background.rows[: ROWS.get(name, 12)]
    served = model.native.predict(X)
    found = explain_rows(model, X, served, seeds=np.arange(len(X)))
    assert found is not None
    assert found.explanation is not None
    assert model.explainer is not None
    samples = [
        Sample(
            model=name,
            version=1,
            digest=model.digest,
            method=model.explainer.method,
            background_digest=model.background.digest,
            seed=row,
            fed=[None if np.isnan(cell) else cell for cell in X[row].tolist()],
            values=found.explanation.values[row].tolist(),
            outputs=served.outputs[row].tolist(),
            row_seconds=0.001,
        )
        for row in range(len(X))
    ]
    return Explained(model, samples)


def found(model: RegisteredModel, sample: Sample) -> Findings:
    """As a worker's child finds it, there and back."""
    task = sample.to_bytes()
    assert is_sample(task)
    findings = measure(model, Sample.from_bytes(task), lambda: None)
    return Findings.from_bytes(findings.to_bytes())


def mean(model: RegisteredModel, samples: list[Sample], which: Any) -> float:
    values = [found(model, sample).found[which].value for sample in samples]
    return float(np.mean([value for value in values if value is not None]))


def test_exact_interventional_values_are_faithful_and_stable(explained: Explained) -> None:
    model, samples = explained.model, explained.samples
    fidelity = mean(model, samples, "fidelity")
    assert fidelity > (0.9999999 if model.name in ADDITIVE else 0.93)
    assert mean(model, samples, "stability") > 0.9


def permuted(sample: Sample) -> Sample:
    order = np.random.default_rng(sample.seed).permutation(len(sample.values))
    return replace(sample, values=[sample.values[i] for i in order])


def test_values_under_other_columns_are_not_faithful(explained: Explained) -> None:
    """They add up as before, so additivity cannot see it."""
    samples = [permuted(sample) for sample in explained.samples]
    assert mean(explained.model, samples, "fidelity") < 0.4


def test_values_over_another_background_are_less_faithful(explained: Explained) -> None:
    model, sample = explained.model, explained.samples[0]
    with pytest.raises(ValueError, match="another background"):
        found(model, replace(sample, background_digest="sha256:other"))


@dataclass(frozen=True)
class Unsteady:
    """The real explainer, but each row's values are under columns drawn by its seed, or by its
    numbers.
    """

    real: Explainer
    by_seed: bool

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def against(self, background: Background) -> "Explainer":
        return self.real.against(background)

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        explanation = self.real.explain(X, seeds=seeds)
        assert seeds is not None
        values = explanation.values.copy()
        for row, x in enumerate(X):
            drawn = int(seeds[row]) if self.by_seed else abs(hash(x.tobytes()))
            values[row] = values[row, np.random.default_rng(drawn).permutation(values.shape[1])]
        return replace(explanation, values=values)


@pytest.mark.parametrize("by_seed", [True, False])
def test_an_explainer_that_jumps_is_not_stable(linear: Explained, *, by_seed: bool) -> None:
    model = linear.model
    assert model.explainer is not None
    unsteady = replace(model, explainer=Unsteady(model.explainer, by_seed))
    assert mean(unsteady, linear.samples, "stability") < 0.5
    assert mean(unsteady, linear.samples, "fidelity") > 0.9999999


def test_the_same_sample_measures_the_same(explained: Explained) -> None:
    model, sample = explained.model, explained.samples[0]
    first, again = (found(model, sample) for _ in range(2))
    assert first.found == again.found
    assert first.model_evaluations == again.model_evaluations > 0
    other = found(model, replace(sample, seed=sample.seed + 1))
    assert other.found["stability"] != first.found["stability"]


def test_a_method_asked_for_is_measured_by_its_own_explainer(explained: Explained) -> None:
    model, sample = explained.model, explained.samples[0]
    own = found(model, sample)
    other = found(model, replace(sample, method="permutation"))
    assert (other.found["stability"].value or 0) > 0.8
    assert other.model_evaluations != own.model_evaluations
    pairs = found(model, replace(sample, method="interactions"))
    assert pairs.found == own.found


Change = Callable[[Sample], dict[str, object]]
ODD: dict[str, tuple[Change, tuple[str, str]]] = {
    "all zero": (lambda s: {"values": np.zeros_like(s.values).tolist()}, ("zero", "zero")),
    "noise": (lambda s: {"values": np.full_like(s.values, 1e-15).tolist()}, ("zero", "zero")),
    "no number": (
        lambda s: {"values": np.full_like(s.values, np.nan).tolist()},
        ("not_finite", "not_finite"),
    ),
    "slow": (lambda _: {"row_seconds": 4.0}, ("too_costly", "measured")),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_measured_says_why(linear: Explained, name: str) -> None:
    change, expected = ODD[name]
    sample = replace(linear.samples[0], **change(linear.samples[0]))  # type: ignore[arg-type]
    findings = measure(linear.model, sample, lambda: None)
    assert tuple(finding.outcome for finding in findings.found.values()) == expected
    assert all((f.value is None) == (f.outcome != "measured") for f in findings.found.values())


def test_a_costly_explainer_has_fewer_neighbours_explained(linear: Explained) -> None:
    model, calls = linear.model, []

    @dataclass(frozen=True)
    class Counted(Unsteady):
        def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
            assert seeds is not None
            calls.extend(seeds.tolist())
            return self.real.explain(X, seeds=seeds)

    assert model.explainer is not None
    counted = replace(model, explainer=Counted(model.explainer, by_seed=False))
    for seconds, expected in ((0.001, 10), (1.0, 5), (2.4, 2)):
        calls.clear()
        measure(counted, replace(linear.samples[0], row_seconds=seconds), lambda: None)
        assert len(calls) == len(set(calls)) == expected, "each has a seed of its own"


def test_a_measure_that_takes_too_long_ends(
    linear: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MOST_SECONDS", -1.0)
    findings = measure(linear.model, replace(linear.samples[0], row_seconds=0.0), lambda: None)
    assert findings.found["fidelity"].outcome == "too_costly"


def test_an_output_that_never_changes_is_constant(linear: Explained) -> None:
    model = linear.model

    class Constant:
        def __getattr__(self, name: str) -> object:
            return getattr(model.native, name)

        def evaluate(self, X: FloatArray) -> FloatArray:
            return np.full((len(X), 1), 3.0)

    constant = replace(model, native=Constant())
    findings = measure(constant, linear.samples[0], lambda: None)
    assert findings.found["fidelity"].outcome == "constant"


def test_a_version_without_an_explainer_is_refused(linear: Explained) -> None:
    with pytest.raises(ValueError, match="no explainer"):
        measure(replace(linear.model, explainer=None), linear.samples[0], lambda: None)


def test_nothing_in_a_task_is_more_than_one_row(linear: Explained) -> None:
    said = orjson.loads(linear.samples[0].to_bytes())["quality"]
    assert len(said["fed"]) == len(linear.model.schema.columns)
