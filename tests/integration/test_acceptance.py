"""Every model family over the real service, against its library and against brute force."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from called_families import CALLED, LARGER_CALLED
from families import FAMILIES, LARGER, UNSEEN, Family, outputs_of_artifact
from servers import JSON, WITH_WORKER, Client, running_server, wait_until

from explainers.base import Background, IdentityDerivation
from explainers.exact import interventional_values, restricted_background, restricted_oracle
from schemas import Column
from service.models.base import TreeForm
from service.registry import RegisteredModel, Registry
from service.registry.building import ExplainerFactory
from service.registry.called import LARGEST_Z
from service.registry.proof import column_groups
from service.registry.registered import naming_of
from service.registry.work import Options
from service.replaying import Recorded, replay
from service.secrets import Keyring
from service.settings import Settings
from service.storing import evidence_store

ROWS = 50
ON_THRESHOLDS = slice(25, 40)
COMPARED_ROWS = 1000
CALLED_ROWS = 30
BRUTE_FORCE_COLUMNS = 9
BRUTE_FORCE_ROWS = 4
BACKGROUND_ROWS = 60
TOLERANCE = 1e-5

Serve = Callable[[str], "Case"]


@dataclass
class Case:
    """A family that is registered and served."""

    family: Family
    model: RegisteredModel
    warnings: tuple[str, ...]
    library: Callable[[pd.DataFrame], np.ndarray]
    client: Client
    data_dir: Path

    def outputs(self, rows: np.ndarray) -> np.ndarray:
        """The library's own numbers, read from the stored artifact, for coded rows."""
        return self.library(self.family.prepare(self.frame(rows)))

    def frame(self, rows: np.ndarray) -> pd.DataFrame:
        columns = self.model.schema.columns
        return pd.DataFrame({c.name: decoded(c, rows[:, i]) for i, c in enumerate(columns)})

    def instances(self, rows: np.ndarray) -> list[dict[str, Any]]:
        records = self.frame(rows).astype(object)
        return records.where(records.notna(), None).to_dict("records")

    def ask(self, rows: np.ndarray, query: str = "?explain=true&top=0") -> dict[str, Any]:
        path = f"/models/{self.model.name}/predict"
        answer = self.client.predict(self.instances(rows), query=query, path=path)
        assert answer.status == 200, answer.body
        return answer.json()

    @cached_property
    def rows(self) -> np.ndarray:
        """Training rows, and rows made of thresholds, gaps and rare or unseen levels."""
        return edge_rows(self)

    @cached_property
    def answer(self) -> dict[str, Any]:
        return self.ask(self.rows)

    @cached_property
    def values(self) -> np.ndarray:
        assert self.answer["explanation"]["status"] == "complete", self.answer["explanation"]
        return np.array(self.answer["explanation"]["values"])


def decoded(column: Column, codes: np.ndarray) -> pd.Series:
    if column.levels is not None:
        table = np.array([*column.levels, UNSEEN, None], dtype=object)
        position = np.where(np.isnan(codes), len(table) - 1, codes)
        return pd.Series(table[np.where(position < 0, len(table) - 2, position).astype(int)])
    if column.kind == "integer":
        return pd.Series([None if np.isnan(code) else int(code) for code in codes], dtype=object)
    return pd.Series(codes)


def training_codes(case: Case) -> np.ndarray:
    coded = np.empty(case.family.X.shape)
    for i, column in enumerate(case.model.schema.columns):
        cells = case.family.X[column.name]
        if column.levels is not None:
            cells = cells.map({level: code for code, level in enumerate(column.levels)})
        coded[:, i] = cells
    return coded


def edge_rows(case: Case) -> np.ndarray:
    rng = np.random.default_rng(3)
    known = training_codes(case)
    rows = known[rng.integers(len(known), size=ROWS)]
    rows[0] = known[0]
    form = case.model.native.form()
    for i, column in enumerate(case.model.schema.columns):
        if column.nullable:
            rows[rng.choice(ROWS, 5, replace=False), i] = np.nan
        if column.levels is not None:
            rarest = np.argmin(np.bincount(known[~np.isnan(known[:, i]), i].astype(int)))
            rows[rng.choice(ROWS, 3, replace=False), i] = rarest
            if column.unknown == "ignore":
                rows[rng.choice(ROWS, 3, replace=False), i] = -1
        elif isinstance(form, TreeForm) and isinstance(form.derivation, IdentityDerivation):
            thresholds = form.ensemble.threshold[form.ensemble.column == i]
            if column.kind == "integer":
                thresholds = np.ceil(thresholds)
            if len(thresholds):
                rows[ON_THRESHOLDS, i] = rng.choice(thresholds, 15)
    return rows


def relative(found: np.ndarray, expected: np.ndarray, values: np.ndarray) -> float:
    """Largest gap over the row's largest |value|."""
    return float(np.abs(found - expected).max() / np.abs(values).max())


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Name to served case; one server, which finds models as they are registered."""
    data_dir = tmp_path_factory.mktemp("acceptance")
    registry = Registry(data_dir / "registry")
    cases: dict[str, Case] = {}
    with running_server(data_dir, env=WITH_WORKER) as server:

        def served(name: str) -> Case:
            if name not in cases:
                family = {**FAMILIES, **LARGER, **CALLED, **LARGER_CALLED}[name]()
                options = Options(background_rows=BACKGROUND_ROWS, **family.options)
                made = registry.register(name, family.model, family.X, family.y, options=options)
                client = server.client()
                wait_until(lambda: client.get(f"/models/{name}").status == 200)
                library = outputs_of_artifact(registry.layout.folder(name, 1))
                cases[name] = Case(
                    family, made.model, made.report.warnings, library, client, data_dir
                )
            return cases[name]

        yield served


@pytest.fixture(
    scope="session",
    params=[*FAMILIES, *(pytest.param(name, marks=pytest.mark.extra_data) for name in LARGER)],
)
def case(request: pytest.FixtureRequest, serve: Serve) -> Case:
    return serve(request.param)


def test_registration_proves_the_explainer_without_a_warning(case: Case) -> None:
    assert case.warnings == ()
    assert case.model.explainer is not None
    assert case.model.manifest.proof.oracle_gap <= TOLERANCE


def test_engine_equals_brute_force_through_the_library_on_restricted_games(case: Case) -> None:
    naming = naming_of(case.model.manifest, case.model.schema)
    factory = ExplainerFactory.for_model(case.model.native, naming)
    reference = case.model.background.rows[:20]
    groups = column_groups(case.rows.shape[1])
    worst = 0.0
    for index, x in enumerate(case.rows):
        columns = groups[index % len(groups)]
        expected = restricted_oracle(case.outputs, x[None, :], reference, columns)[0]
        played = Background.of(restricted_background(reference, x, columns))
        found = factory.build(played).explain(x[None, :]).values[0, columns]
        worst = max(worst, relative(found, expected, case.values[index]))
    assert worst <= TOLERANCE


def test_served_values_equal_brute_force_over_the_whole_background(case: Case) -> None:
    if case.rows.shape[1] > BRUTE_FORCE_COLUMNS:
        pytest.skip("too many columns to enumerate")
    background = case.model.background.rows
    for index in np.linspace(0, ROWS - 1, BRUTE_FORCE_ROWS).astype(int):
        expected = interventional_values(case.outputs, case.rows[index], background)
        values = case.values[index]
        assert relative(values, expected, values) <= TOLERANCE


def test_served_values_add_up_to_the_librarys_output(case: Case) -> None:
    explanation = case.answer["explanation"]
    outputs = np.array(explanation["outputs"])
    total = np.array(explanation["base_values"]) + case.values.sum(axis=1)
    scale = np.maximum(np.abs(outputs), np.abs(case.values).sum(axis=1))
    assert np.all(np.abs(total - outputs) <= TOLERANCE * scale)
    library = case.outputs(case.rows)
    np.testing.assert_allclose(outputs, library, rtol=1e-6, atol=1e-6 * np.abs(library).max())


def test_served_predictions_are_the_librarys_bit_by_bit(case: Case) -> None:
    rows = compared_rows(case)
    expected = case.family.predictions(case.frame(rows))
    np.testing.assert_array_equal(served_scores(case, rows), expected)


def compared_rows(case: Case) -> np.ndarray:
    known = training_codes(case)
    chosen = np.random.default_rng(5).integers(len(known), size=COMPARED_ROWS - ROWS)
    return np.vstack([case.rows, known[chosen]])


def served_scores(case: Case, rows: np.ndarray) -> np.ndarray:
    scores = []
    for start in range(0, len(rows), 250):
        for prediction in case.ask(rows[start : start + 250], "")["predictions"]:
            shares = prediction.get("probabilities", prediction)
            scores.append(list(shares.values()))
    return np.array(scores)


def test_the_stored_record_computed_again_gives_the_same_bytes(case: Case) -> None:
    settings = Settings.load({}, data_dir=case.data_dir)
    request_id = case.answer["request_id"]
    with evidence_store(settings) as store:
        record = store.record("default", request_id)
    assert record is not None
    keyring = Keyring.open(settings.secret_file)
    report = replay(Recorded.of(record), Registry(settings.registry), keyring, lambda _: None)
    assert report["equal"], report


def test_label_is_the_class_with_the_largest_probability(case: Case) -> None:
    if not case.family.is_classifier:
        pytest.skip("a regression has no labels")
    classes = case.model.manifest.classes
    assert classes is not None
    expected_type = type(case.family.y.tolist()[0])
    for prediction in case.answer["predictions"]:
        shares = list(prediction["probabilities"].values())
        assert prediction["label"] == classes[int(np.argmax(shares))]
        assert type(prediction["label"]) is expected_type


def test_rows_of_a_batch_get_what_they_get_alone(case: Case) -> None:
    for index in range(0, ROWS, 7):
        alone = case.ask(case.rows[index : index + 1])
        assert alone["predictions"][0] == case.answer["predictions"][index]
        for part in ("values", "base_values", "outputs"):
            assert alone["explanation"][part][0] == case.answer["explanation"][part][index]


@pytest.mark.parametrize("name", ["cancer_forest", "cancer_xgboost"])
def test_served_values_equal_shap_where_shap_is_right(serve: Serve, name: str) -> None:
    import shap

    case = serve(name)
    explainer = shap.TreeExplainer(
        case.family.model, case.model.background.rows, feature_perturbation="interventional"
    )
    # On a forest's thresholds shap compares in another precision than scikit-learn.
    indices = np.setdiff1d(np.arange(ROWS), np.arange(ROWS)[ON_THRESHOLDS])
    expected = explainer.shap_values(case.rows[indices])
    expected = expected[:, :, 1] if expected.ndim == 3 else expected
    for found, values in zip(case.values[indices, :, 0], expected, strict=True):
        assert relative(found, values, values) <= TOLERANCE


@pytest.fixture(
    scope="session",
    params=[
        *CALLED,
        # Registered and explained in test_queued_acceptance in every run.
        *(
            pytest.param(name, marks=[pytest.mark.extra_data, pytest.mark.drill])
            for name in LARGER_CALLED
        ),
    ],
)
def called(request: pytest.FixtureRequest, serve: Serve) -> Case:
    return serve(request.param)


def test_registration_proves_models_that_are_only_called(called: Case) -> None:
    manifest = called.model.manifest
    explainer, proven = manifest.explainer, manifest.proof
    assert called.warnings == ()
    assert explainer.reason
    assert not called.model.runs_inline
    few = len(called.model.schema.columns) <= BRUTE_FORCE_COLUMNS
    assert explainer.engine == ("enumeration" if few else "sampler")
    worst = proven.oracle_gap if few else proven.oracle_z
    assert worst is not None
    assert worst <= (TOLERANCE if few else LARGEST_Z)


def test_called_models_are_served_bit_by_bit_as_their_library_does(called: Case) -> None:
    rows = training_codes(called)
    rows = rows[np.random.default_rng(5).integers(len(rows), size=CALLED_ROWS)]
    answer = called.ask(rows)
    assert answer["predictions"] == called.ask(rows, "")["predictions"]
    expected = np.vstack([called.family.predictions(called.frame(row[None, :])) for row in rows])
    np.testing.assert_array_equal(served_scores(called, rows), expected)


def test_called_models_add_up_to_the_librarys_output(called: Case) -> None:
    explainer, native = called.model.explainer, called.model.native
    assert explainer is not None
    rows = training_codes(called)[:2]
    explanation = explainer.explain(rows, seeds=np.array([1, 2]))
    total = explanation.base_values + explanation.values.sum(axis=1)
    outputs = native.predict(rows).outputs
    assert np.abs(total - outputs).max() <= explainer.tolerance * np.abs(outputs).max()
    library = called.outputs(rows)
    if called.model.manifest.explainer.output_space == "probability":
        # Some of these have a decision function too, which is not what is served.
        library = called.family.predictions(called.frame(rows))
        library = library[:, 1:] if library.shape[1] == 2 else library
    np.testing.assert_allclose(outputs, library, rtol=1e-6, atol=1e-6 * np.abs(library).max())


def test_level_the_model_never_saw_is_served_as_its_library_takes_it(serve: Serve) -> None:
    case = serve("mixed_lightgbm")
    instance = case.instances(case.rows[:1])[0]
    unseen, missing = instance | {"site": UNSEEN}, instance | {"site": None}
    path = f"/models/{case.model.name}/predict"
    answer = case.client.predict([unseen, missing], path=path).json()
    assert answer["predictions"][0] == answer["predictions"][1]
    assert answer["explanation"]["values"][0] == answer["explanation"]["values"][1]
    assert answer["warnings"] == [{"pointer": "/instances/0/site", "code": "unseen_category"}]


def test_level_xgboost_never_saw_is_refused(serve: Serve) -> None:
    case = serve("mixed_xgboost")
    instance = case.instances(case.rows[:1])[0] | {"site": UNSEEN}
    answer = case.client.predict([instance], path=f"/models/{case.model.name}/predict")
    assert answer.status == 422
    assert answer.json()["errors"][0]["code"] == "unknown_category"


def test_sample_request_of_every_family_works(case: Case) -> None:
    sample = case.client.get(f"/models/{case.model.name}").json()["sample_request"]
    path = f"/models/{case.model.name}/predict"
    body = json.dumps(sample).encode()
    answer = case.client.request("POST", f"{path}?explain=true", body, JSON).json()
    assert answer["explanation"]["status"] == "complete"
    assert answer["warnings"] == []
