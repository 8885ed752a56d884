"""Whoever may not see a column does not get its number back from what he is given.

An attacker with a masked role collects 1,500 answers. He knows the visible columns, and to train on
two thirds of them the masked one. From what he is given on top of the label he must not get nearer
to the masked number of the last third than from the label alone; the same attacker must succeed
where something does tell (the controls), or the test could not fail.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from live_app import LiveApp, live_app
from numpy.typing import NDArray
from scipy.stats import ttest_1samp
from servers import Client
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression

from service.auth import KeyFile
from service.registry import Registry
from service.registry.work import Options

Matrix = NDArray[np.float64]
Answers = list[dict[str, Any]]
"""One record's document per batch."""

MASKED = "age"
VISIBLE = ("income", "debt", "years", "rooms", "distance")
SEED = 11
BATCH, BATCHES = 100, 15
POLICY = '[default.roles.support]\nmask = ["age"]\n'


def people(n: int, seed: int) -> tuple[pd.DataFrame, "pd.Series[str]"]:
    """Somebody's age decides on which side of the income he is, and counts for itself."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 6)), columns=[MASKED, *VISIBLE])
    X[MASKED] = rng.uniform(18, 80, n).round(3)
    old = (X[MASKED] - 49) / 18
    score = 1.2 * old + 1.5 * old * X["income"] + X["debt"] * np.where(old > 0, 1, -1) - X["years"]
    chance = 1 / (1 + np.exp(-score - 0.3 * X["rooms"]))
    return X, pd.Series(np.where(rng.random(n) < chance, "bad", "good"))


def registered(folder: Path) -> Path:
    from xgboost import XGBClassifier

    X, y = people(4000, SEED)
    classes = ("bad", "good")
    trees = XGBClassifier(n_estimators=60, max_depth=4, learning_rate=0.2, n_jobs=1)
    trees.fit(X, y == "good")
    line = LogisticRegression(max_iter=1000).fit(X, y)
    options = Options(classes=classes)
    Registry(folder).register("trees", trees, X, y, options=options)
    Registry(folder).register("line", line, X, y, options=options)
    return folder


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, str]) -> Iterator[LiveApp]:
    folder = tmp_path_factory.mktemp("inversion")
    registry = registered(folder / "registry")
    content, scopes = KeyFile(), ("predict", "explain", "audit")
    for name, roles in {"owner": (), "support": ("support",)}.items():
        content, keys[name] = content.with_key(name, scopes, roles=roles, explain_per_minute=0)
    content.write(folder / "keys.json")
    (folder / "policy.toml").write_text(POLICY)
    settings = {"api_keys_file": folder / "keys.json", "policy_file": folder / "policy.toml"}
    with live_app(folder, registry=registry, **settings) as live:
        yield live


def records(client: Client, reader: Client, model: str, X: pd.DataFrame) -> Answers:
    """What the reader is given of the predictions that the client had explained."""
    found = []
    for start in range(0, len(X), BATCH):
        instances = X.iloc[start : start + BATCH].to_dict("records")
        answer = client.predict(instances, path=f"/models/{model}/predict")
        assert answer.status == 200
        found.append(reader.get(answer.json()["explanation"]["links"]["self"]).json())
    return found


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return people(BATCH * BATCHES, SEED + 1)[0]


@pytest.fixture(scope="module")
def masked(live: LiveApp, keys: dict[str, str], rows: pd.DataFrame) -> Answers:
    return records(live.client(keys["owner"]), live.client(keys["support"]), "trees", rows)


@pytest.fixture(scope="module")
def whole(live: LiveApp, keys: dict[str, str], rows: pd.DataFrame) -> Answers:
    return records(live.client(keys["owner"]), live.client(keys["owner"]), "trees", rows)


def labels(answers: Answers) -> Matrix:
    found = [[p["label"] == "bad"] for answer in answers for p in answer["predictions"]]
    return np.array(found, dtype=np.float64)


def given(answers: Answers) -> Matrix:
    """(N, 2 V) ranks and signs as the masked answers say them."""
    found = []
    for answer in answers:
        for entries in answer["explanation"]["visible"]:
            entry = {e["feature"]: e for e in entries}
            found.append([entry[name][word] for word in ("rank", "sign") for name in VISIBLE])
    return np.array(found, dtype=np.float64)


def stored(answers: Answers) -> Matrix:
    """(N, V) values of the visible columns as the whole records say them."""
    names = answers[0]["explanation"]["feature_names"]
    columns = [names.index(name) for name in VISIBLE]
    values = [row for answer in answers for row in answer["explanation"]["values"]]
    return np.array(values)[:, columns, 0]


def ranks_and_signs(values: Matrix) -> Matrix:
    """What naive masking would give: of the stored values."""
    ranks = np.argsort(np.argsort(-np.abs(values), axis=1), axis=1) + 1.0
    return np.hstack([ranks, np.sign(values)])


def errors(known: Matrix, ages: Matrix) -> Matrix:
    """Of the better of two attackers, for each row of the last third: |guess - age|."""
    cut = 2 * len(ages) // 3
    attackers = [
        HistGradientBoostingRegressor(random_state=SEED, max_iter=150, learning_rate=0.05),
        RandomForestRegressor(300, min_samples_leaf=3, random_state=SEED, n_jobs=1),
    ]
    tried = [
        np.abs(attacker.fit(known[:cut], ages[:cut]).predict(known[cut:]) - ages[cut:])
        for attacker in attackers
    ]
    return min(tried, key=np.mean)


def chance_of_no_gain(before: Matrix, after: Matrix) -> float:
    """p of a paired one-sided t-test: as small where the errors fell."""
    return float(ttest_1samp(before - after, 0.0, alternative="greater").pvalue)


@pytest.mark.drill
def test_ranks_and_signs_bring_an_attacker_no_nearer_than_the_label_alone(
    rows: pd.DataFrame, masked: Answers, whole: Answers
) -> None:
    ages, seen = rows[MASKED].to_numpy(), rows[[*VISIBLE]].to_numpy()
    assert (labels(masked) == labels(whole)).all()
    label_only = errors(np.hstack([seen, labels(masked)]), ages)
    attacked = errors(np.hstack([seen, labels(masked), given(masked)]), ages)
    naive = errors(np.hstack([seen, labels(masked), ranks_and_signs(stored(whole))]), ages)
    blind = errors(seen, ages)
    print(  # measured: 15.9, 10.7, 10.8 and 6.8 years
        f"mean error in years: inputs {blind.mean():.2f}, label {label_only.mean():.2f}, "
        f"given {attacked.mean():.2f}, ranks of stored values {naive.mean():.2f}"
    )
    assert chance_of_no_gain(label_only, attacked) > 0.05
    assert abs(attacked.mean() / label_only.mean() - 1) < 0.03
    # The attackers are able ones: the label tells something, ranks of stored values much more.
    assert chance_of_no_gain(blind, label_only) < 1e-6
    assert chance_of_no_gain(label_only, naive) < 1e-6
    assert naive.mean() < 0.7 * label_only.mean()


def test_the_stored_values_give_the_masked_number_back_exactly(
    live: LiveApp, keys: dict[str, str], rows: pd.DataFrame
) -> None:
    owner = live.client(keys["owner"])
    answers = records(owner, owner, "line", rows.iloc[:200])
    explained = [answer["explanation"] for answer in answers]
    names = explained[0]["feature_names"]
    values = np.concatenate([e["values"] for e in explained])[:, :, 0]
    totals = np.concatenate([np.subtract(e["outputs"], e["base_values"]) for e in explained])
    others = [index for index, name in enumerate(names) if name != MASKED]
    recovered = totals[:, 0] - values[:, others].sum(axis=1)
    assert np.abs(recovered - values[:, names.index(MASKED)]).max() < 1e-12
    ages = rows[MASKED].to_numpy()[:200]
    slope = (ages[1] - ages[0]) / (recovered[1] - recovered[0])
    guessed = ages[0] + slope * (recovered - recovered[0])
    assert np.abs(guessed / ages - 1).max() < 1e-10


@pytest.mark.parametrize("model", ["trees", "line"])
def test_whatever_the_masked_column_holds_the_masked_answer_is_the_same(
    live: LiveApp, keys: dict[str, str], rows: pd.DataFrame, model: str
) -> None:
    owner, support = live.client(keys["owner"]), live.client(keys["support"])
    first = rows.iloc[:BATCH]
    other = first.assign(**{MASKED: np.linspace(1, 120, BATCH)[::-1]})
    documents = [records(owner, support, model, X)[0] for X in (first, other)]
    told = [document["explanation"]["visible"] for document in documents]
    assert told[0] == told[1]
    for document in documents:
        assert all(instance[MASKED] is None for instance in document["instances"])
        for own in ("request_id", "received_at", "provenance", "predictions"):
            del document[own]
        del document["explanation"]["links"]
    assert documents[0] == documents[1]


def test_ranks_and_signs_are_those_of_a_model_without_interactions(
    live: LiveApp, keys: dict[str, str], rows: pd.DataFrame
) -> None:
    owner, support = live.client(keys["owner"]), live.client(keys["support"])
    X = rows.iloc[:BATCH]
    told = given(records(owner, support, "line", X))
    assert (told == ranks_and_signs(stored(records(owner, owner, "line", X)))).all()


def test_ranks_and_signs_agree_mostly_with_the_stored_ones(masked: Answers, whole: Answers) -> None:
    told, values = given(masked), stored(whole)
    strongest = np.abs(values).argmax(axis=1)
    signs = told[np.arange(len(told)), len(VISIBLE) + strongest]
    agreement = float((signs == np.sign(values[np.arange(len(values)), strongest])).mean())
    print(f"sign of the strongest visible column as stored: {agreement:.2f}")
    assert 0.6 < agreement < 1  # not 1: what differs is what the masked column does
