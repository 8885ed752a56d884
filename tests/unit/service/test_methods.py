"""Which versions and how many rows can be explained by a method asked for by name."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from explainers.sampled.permutation import PermutationConfig, PermutationExplainer
from schemas import Method, ModelSchema
from service.methods import MOST_PAIRS, MOST_SECONDS, model_rows, refusal, sampling_config
from service.ondemand import explainer_by
from service.registry import Registry
from service.registry.described import DescribedVersion, KnownVersion, describe_version
from service.registry.manifest import CallsEntry

MOST = MOST_PAIRS // 30**2
CALLS = CallsEntry(passes=4, target=0.01, budget_rows=70_000, rows_per_call=512)


@pytest.fixture(scope="module")
def version(demo_registry: Path) -> KnownVersion:
    """Of 30 columns and one output."""
    return describe_version(Registry(demo_registry).layout, "breast_cancer", 1)


def changed(version: KnownVersion, *, columns: int | None = None, **facts: object) -> KnownVersion:
    """facts: of the explainer; or the model rows per second."""
    manifest = version.manifest
    speed = facts.pop("rows_per_second", None)
    cost = manifest.cost.model_copy(update={"evaluate_rows_per_second": speed} if speed else {})
    explainer = manifest.explainer.model_copy(update=facts)
    manifest = manifest.model_copy(update={"cost": cost, "explainer": explainer})
    schema = ModelSchema(version.schema.columns[:columns])
    return DescribedVersion(manifest, version.digest, schema)


def test_pairs_are_bounded_and_values_are_not(version: KnownVersion) -> None:
    assert refusal(version, "interactions", MOST) is None
    assert f"at most {MOST} instances" in str(refusal(version, "interactions", MOST + 1))
    for method in (None, "permutation", "kernel", "lime"):
        assert refusal(version, method, 1) is None  # type: ignore[arg-type]
    assert refusal(version, None, 10 * MOST) is None


def test_what_a_model_cannot_be_asked_is_said(version: KnownVersion) -> None:
    few_vary = "at most 12 columns, however few of them vary: this one has 30"
    assert few_vary in str(refusal(version, "exact", 1))
    assert "torch" in str(refusal(version, "integrated_gradients", 1))


def test_a_versions_own_method_can_be_named_and_no_other_of_the_exact_forms(
    version: KnownVersion,
) -> None:
    assert refusal(version, "tree_interventional", 1000) is None
    assert "this version by tree_interventional" in str(refusal(version, "linear", 1))
    sampled = changed(version, method="permutation", calls=CALLS)
    assert "this version by permutation" in str(refusal(sampled, "tree_interventional", 1))


@pytest.mark.parametrize("method", [None, *get_args(Method)])
def test_a_version_that_is_not_explained_is_not_by_any_method(
    version: KnownVersion, method: Method | None
) -> None:
    torn = changed(version, method=None, reason="batches differ", columns=12)
    assert refusal(torn, method, 1) == "batches differ"


@pytest.mark.parametrize("method", ["permutation", "exact", "kernel", "lime"])
def test_what_takes_too_long_at_the_models_speed_is_refused_with_the_numbers(
    version: KnownVersion, method: str
) -> None:
    few = changed(version, columns=12)
    rows = model_rows(few, method)  # type: ignore[arg-type]
    fast = changed(few, rows_per_second=10 * rows / MOST_SECONDS * 1.01, calls=CALLS)
    rows = model_rows(fast, method)  # type: ignore[arg-type]
    fast = changed(few, rows_per_second=10 * rows / MOST_SECONDS * 1.01, calls=CALLS)
    assert refusal(fast, method, 10) is None  # type: ignore[arg-type]
    reason = str(refusal(fast, method, 11))  # type: ignore[arg-type]
    assert f"{11 * rows:,} model rows" in reason
    assert "at most 600 s" in reason


def test_a_versions_own_method_has_the_budget_it_was_registered_with(
    version: KnownVersion,
) -> None:
    slow = changed(version, method="permutation", calls=CALLS, rows_per_second=1.0)
    assert refusal(slow, None, 1000) is None
    assert refusal(slow, "permutation", 1000) is None
    assert "by kernel" in str(refusal(slow, "kernel", 1))


def test_sampling_on_demand_has_the_registered_budget_or_one_by_the_models_speed(
    version: KnownVersion, demo_registry: Path
) -> None:
    assert sampling_config(changed(version, calls=CALLS)).budget_rows == 70_000
    assert sampling_config(changed(version, rows_per_second=2e4)).budget_rows == 200_000
    model = Registry(demo_registry).serving("breast_cancer")
    model = replace(model, manifest=changed(model, calls=CALLS).manifest)
    explainer = explainer_by(model, "permutation")
    assert isinstance(explainer, PermutationExplainer)
    assert explainer.config == PermutationConfig(**CALLS.model_dump())


def test_pairs_beyond_the_budget_of_a_row_are_refused(version: KnownVersion) -> None:
    calls = CALLS.model_copy(update={"budget_rows": 1_000_000, "passes": 8})
    sampled = changed(version, method="permutation", calls=calls, rows_per_second=1e6)
    reason = str(refusal(sampled, "interactions", 1))
    assert "30 varying columns take 1392128 model rows, more than the 1000000" in reason
    assert refusal(changed(sampled, columns=24), "interactions", 1) is None
    by_enumeration = changed(sampled, method="exact", columns=12)
    assert model_rows(by_enumeration, "interactions") == model_rows(by_enumeration, "exact")
    assert model_rows(version, "interactions") == 0


def test_a_background_too_large_for_any_sampling_is_refused(version: KnownVersion) -> None:
    tight = CALLS.model_copy(update={"budget_rows": 100})
    assert "more than the 100 model rows" in str(
        refusal(changed(version, method="exact", calls=tight), "permutation", 1)
    )
    assert PermutationConfig().first_stage(30, 100).passes == 8
