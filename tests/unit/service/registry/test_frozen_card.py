"""card.md of a version: what the registry knows, said so that nobody reads more into it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tables import diabetes, larger_table, wine

from service.registry import Registration, Registry
from service.registry.frozen_card import code
from service.registry.work import Options


def card_of(folder: Path, model: Any, X: pd.DataFrame, y: pd.Series, **options: Any) -> str:
    registry = Registry(folder / "registry")
    made: Registration = registry.register("m", model, X, y, options=Options(**options))
    text = (folder / "registry" / "m" / "1" / "card.md").read_text()
    manifest = made.model.manifest
    for digest in (
        manifest.artifact.digest,
        manifest.schema_digest,
        manifest.background.digest,
        manifest.explainer.config_digest,
    ):
        assert f"`{digest}`" in text
    return text


@pytest.mark.extra_data
def test_a_card_of_german_credit_says_what_it_is_and_what_it_is_not(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    table = larger_table("german_credit")
    X, risk = table.drop(columns="risk"), table["risk"]
    texts = {name: "category" for name in X if not pd.api.types.is_numeric_dtype(X[name])}
    model = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1, enable_categorical=True)
    model.fit(X.astype(texts), (risk == "bad").astype(int))
    text = card_of(tmp_path, model, X, risk, classes=("good", "bad"))
    assert "| task | binary |" in text
    assert "| classes | `good`, `bad` |" in text
    assert "| `age` | integer | 23 to 52 | 0.0%, not allowed |" in text
    assert "| `housing` | category | `free`, `own`, `rent` | 0.0%, not allowed |" in text
    assert "1000 rows, of which 100 were drawn with seed 0" in text
    assert "| AUC | 0." in text
    assert "| measure | on 1000 rows |" in text
    assert "most likely those it was trained on" in text
    assert "they are not causes." in text
    assert "breaks the dependence between columns" in text
    assert "They add up in log_odds, not in probabilities." in text
    assert "standard errors" not in text


def test_a_multiclass_card_names_every_class(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    X, y = wine()
    X = X.iloc[:, :3]
    names = {0: "one|two", 1: "`tick`", 2: "<b>"}
    model = XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(X, y)
    text = card_of(tmp_path, model, X, y.map(names), classes=tuple(names.values()))
    assert r"| classes | `one\|two`, `'tick'`, `<b>` |" in text
    assert "in margin, link softmax" in text


def test_a_regressions_card_has_no_classes_and_its_own_measures(tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge

    X, y = diabetes()
    text = card_of(tmp_path, Ridge().fit(X, y), X.assign(note="x"), y)
    assert "| classes | none |" in text
    assert "| RMSE | " in text
    assert "| R2 | " in text
    assert "They add up in raw." in text
    assert "Not used: `note`." in text


def test_a_sampled_models_card_says_that_values_have_standard_errors(tmp_path: Path) -> None:
    from sklearn.neural_network import MLPRegressor

    X, y = diabetes()
    X, y = pd.concat([X, X.add_suffix("_2")], axis=1).iloc[:60], y.iloc[:60]
    model = MLPRegressor(hidden_layer_sizes=(2,), tol=1e9, n_iter_no_change=1, random_state=0)
    model.fit(X, y)
    text = card_of(tmp_path, model, X, y, background_rows=5)
    assert "They are sampled: another seed gives other values" in text
    assert "standard errors of brute force" in text


def test_no_text_of_the_data_is_markup() -> None:
    assert code("a\n\n# b | `c`") == r"`a # b \| 'c'`"
    assert code("") == "` `"
