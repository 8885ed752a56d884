"""Text columns that hold personal data are refused unless allowed, and then not shown."""

from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from commands import explaind
from tables import mixed

from service.app import create_app
from service.errors import InvalidInputError
from service.metrics import Metrics
from service.openapi import openapi_document
from service.registry import Registration, Registry
from service.registry.work import Options
from service.routes.models import model_info
from service.served import ServedModel
from service.serving import ServedModels
from service.settings import Settings

CARD, EMAIL = "4111 1111 1111 1111", "joe@example.com"
PLANTED = (CARD, EMAIL)


def table(**columns: list[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Rows whose text columns take their values in turn."""
    X, y = mixed()
    X = X[["radius", "area"]].copy()
    for name, values in columns.items():
        X[name] = pd.Series([values[i % len(values)] for i in range(len(X))], dtype=object)
    return X, y


def boosted(X: pd.DataFrame, y: pd.Series) -> Any:
    """LightGBM: unknown levels count as missing."""
    from lightgbm import LGBMClassifier

    texts = {name: "category" for name in X.columns if X[name].dtype == object}
    return LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(X.astype(texts), y)


def closed(X: pd.DataFrame, y: pd.Series) -> Any:
    """XGBoost: unknown levels are refused."""
    from xgboost import XGBClassifier

    texts = {name: "category" for name in X.columns if X[name].dtype == object}
    model = XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1, enable_categorical=True)
    return model.fit(X.astype(texts), y)


def register(
    path: Path, X: pd.DataFrame, y: pd.Series, *allow: str, fit: Any = boosted
) -> Registration:
    return Registry(path / "registry").register(
        "m", fit(X, y), X, y, options=Options(allow_columns=allow)
    )


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([EMAIL, "plain", "high"], "email in 1 of 3 distinct values"),
        ([CARD, "plain"], "payment_card in 1 of 2 distinct values"),
        ([f"level {n}" for n in range(99)] + ["030 901820-12"], "phone in 1 of 100"),
        ([f"level {n}" for n in range(200)] + [CARD], "payment_card in 1 of 201"),
        ([f"level {n}" for n in range(257)], "257 distinct values, more than 256"),
    ],
)
def test_such_a_column_is_refused_by_name_kind_and_count(
    tmp_path: Path, values: list[str], found: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        register(tmp_path, *table(contact=values))
    message = str(refused.value)
    assert f"column 'contact': {found}" in message
    assert "--allow-column" in message
    assert not any(value in message for value in values)
    assert not (tmp_path / "registry" / "m").exists()


@pytest.mark.parametrize(
    "values",
    [
        ["plain", "high"],
        [f"level {n}" for n in range(256)],
        [f"level {n}" for n in range(100)] + ["030 901820-12"],
    ],
)
def test_others_are_registered_and_nothing_is_allowed(tmp_path: Path, values: list[str]) -> None:
    made = register(tmp_path, *table(contact=values))
    assert made.model.manifest.allowed_columns == ()
    assert made.model.personal_levels == {}


def test_all_columns_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"'one'.*'two'"):
        register(tmp_path, *table(one=[EMAIL, "a"], two=[CARD, "b"]))
    with pytest.raises(InvalidInputError, match="'two'") as refused:
        register(tmp_path, *table(one=[EMAIL, "a"], two=[CARD, "b"]), "one")
    assert "'one'" not in str(refused.value)


def test_only_text_columns_of_the_model_can_be_allowed(tmp_path: Path) -> None:
    for name in ("radius", "nothing"):
        with pytest.raises(InvalidInputError, match=f"no text column '{name}'"):
            register(tmp_path, *table(contact=["plain", "high"]), name)


def test_numbers_are_no_text_columns(tmp_path: Path) -> None:
    X, y = table(contact=["plain", "high"])
    X["account"] = 4111111111111111 % 2**52
    assert register(tmp_path, X, y).model.version == 1


@pytest.mark.parametrize("fit", [boosted, closed])
def test_what_was_allowed_is_recorded_and_not_shown(tmp_path: Path, fit: Any) -> None:
    X, y = table(contact=[EMAIL, EMAIL, CARD, "by post"], other=["common", "high"])
    made = register(tmp_path, X, y, "contact", fit=fit)
    (entry,) = made.model.manifest.allowed_columns
    assert (entry.column, entry.values) == ("contact", 3)
    assert entry.findings == {"email": 1, "payment_card": 1}
    folder = tmp_path / "registry" / "m" / "1"
    card = (folder / "card.md").read_text()
    assert "contact: 3 distinct values, email in 1, payment_card in 1" in card
    served = ServedModel.of(made.model, Metrics(), retention_days=1)
    info = model_info(served, [1])
    assert made.model.sample["contact"] == "by post"
    assert info["json_schema"]["properties"]["contact"]["examples"][:1] == ["by post"]  # type: ignore[index]
    assert "common" in card
    for shown in (card, orjson.dumps([info, made.model.sample]).decode(), openapi(tmp_path)):
        assert not any(value in shown for value in PLANTED), shown
    assert EMAIL in (folder / "schema.json").read_text()  # the model's own file, not shown


def openapi(path: Path) -> str:
    models = ServedModels(Registry(path / "registry"), Metrics(), default=None, retention_days=1)
    models.refresh()
    app = create_app(Settings.load({}, data_dir=path))
    return orjson.dumps(openapi_document(app, models, needs_keys=False)).decode()


@pytest.mark.parametrize(
    ("gap_every", "fit", "shown"), [(10**6, boosted, "other"), (7, closed, None)]
)
def test_a_sample_without_a_level_to_show_leaves_it_out(
    tmp_path: Path, gap_every: int, fit: Any, shown: object
) -> None:
    X, y = table(contact=[EMAIL, CARD])
    X.loc[gap_every::gap_every, "contact"] = None
    made = register(tmp_path, X, y, "contact", fit=fit)
    assert made.model.sample["contact"] == shown
    body = orjson.dumps({"instances": [made.model.sample]})
    assert len(made.model.codec.decode(body, max_instances=1).rows) == 1


def test_a_column_with_nothing_to_show_is_refused_even_if_allowed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="takes nothing but personal data"):
        register(tmp_path, *table(contact=[EMAIL, CARD]), "contact", fit=closed)


def test_the_command_allows_columns_by_name(tmp_path: Path) -> None:
    X, y = table(contact=[EMAIL, "by post"])
    boosted(X, y).booster_.save_model(tmp_path / "model.txt")
    X.assign(y=y).to_csv(tmp_path / "data.csv", index=False)
    place = ("--data-dir", str(tmp_path / "data"))
    files = ("--model", str(tmp_path / "model.txt"), "--data", str(tmp_path / "data.csv"))
    command = ("register", "m", *files, "--target", "y", *place)
    refused = explaind(*command)
    assert refused.returncode == 4
    assert "--allow-column" in refused.stderr
    allowed = explaind(*command, "--allow-column", "contact")
    assert allowed.returncode == 0, allowed.stderr
    assert EMAIL not in refused.stderr + allowed.stdout + allowed.stderr
