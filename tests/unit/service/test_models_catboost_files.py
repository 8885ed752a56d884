import sys
from typing import Any

import numpy as np
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor

from explainers.base import ExplainerError, FloatArray
from service.models.catboost import dump_catboost, load_catboost
from service.models.catboost_file import read_file_facts
from service.models.errors import ModelLoadError
from service.models.flatbuffer import Table

COMMON = {"iterations": 4, "depth": 3, "verbose": False, "allow_writing_files": False}
HEADER = 8
FLIPS = 400


@pytest.fixture(scope="module", name="X")
def numbers() -> FloatArray:
    return np.random.default_rng(0).normal(size=(300, 3))


@pytest.fixture(scope="module")
def symmetric(X: FloatArray) -> bytes:
    return dump_catboost(CatBoostClassifier(**COMMON).fit(X, np.digitize(X[:, 0], [-0.5, 0.5])))


@pytest.fixture(scope="module")
def nested(X: FloatArray) -> bytes:
    return dump_catboost(CatBoostRegressor(grow_policy="Lossguide", **COMMON).fit(X, X[:, 0]))


@pytest.fixture(params=["symmetric", "nested"])
def file(request: pytest.FixtureRequest) -> bytes:
    return request.getfixturevalue(request.param)


def with_number(data: bytes, field: int, index: int, value: float, kind: str) -> bytes:
    """The file with one entry of one array of its trees changed."""
    core = data[HEADER:]
    place = Table.root(core).table(1).fields[field]
    start = place + int(np.frombuffer(core, "<u4", 1, place)[0]) + 4
    changed = bytearray(data)
    entry = HEADER + start + index * np.dtype(kind).itemsize
    changed[entry : entry + np.dtype(kind).itemsize] = np.array(value, dtype=kind).tobytes()
    return bytes(changed)


def test_a_sound_file_says_what_it_needs(symmetric: bytes, nested: bytes) -> None:
    facts = read_file_facts(symmetric)
    assert (facts.n_outputs, facts.n_columns, facts.category_columns) == (3, 3, ())
    assert read_file_facts(nested).n_outputs == 1


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
def test_large_and_constant_models_are_sound(policy: str) -> None:
    X = np.random.default_rng(1).normal(size=(2000, 3))
    options: dict[str, Any] = {
        "grow_policy": policy,
        "verbose": False,
        "allow_writing_files": False,
    }
    large = CatBoostRegressor(iterations=30, depth=8, border_count=600, **options).fit(X, X[:, 0])
    assert load_catboost(dump_catboost(large)).trees_used == 30
    constant = CatBoostRegressor(iterations=3, min_data_in_leaf=2000, **options)
    constant.fit(X, np.repeat([0.0, 1.0], 1000))
    served = load_catboost(dump_catboost(constant))
    np.testing.assert_array_equal(served.predict(X).scores[:, 0], constant.predict(X))


def test_a_file_cut_off_anywhere_is_refused(file: bytes) -> None:
    for end in [*range(40), *range(40, len(file), 97), len(file) - 1]:
        with pytest.raises(ModelLoadError):
            load_catboost(file[:end])


@pytest.mark.parametrize("data", [b"", b"CBM1", b"CBM1\xff\xff\xff\xff", b"PK\x03\x04", b"{}"])
def test_what_is_no_catboost_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelLoadError, match="CatBoost"):
        load_catboost(data)


def test_a_file_with_something_behind_it_is_refused(file: bytes) -> None:
    with pytest.raises(ModelLoadError, match="category statistics"):
        load_catboost(file + b"more")


SPLITS, SIZES, STARTS, VALUES, STEPS, LEAF_IDS, BIAS, BINS = 1, 2, 3, 8, 10, 11, 16, 17


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        (SPLITS, 10_000, "<i4"),
        (SPLITS, -1, "<i4"),
        (SIZES, 5, "<i4"),
        (SIZES, -1, "<i4"),
        (STARTS, 1, "<i4"),
        (VALUES, np.nan, "<f8"),
        (BINS, 0xFFFF, "<u4"),
    ],
)
def test_trees_that_lead_astray_are_refused(
    file: bytes, field: int, value: float, kind: str
) -> None:
    with pytest.raises(ModelLoadError, match="broken CatBoost file"):
        load_catboost(with_number(file, field, 0, value, kind))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (STEPS, 0xFFFF0001),
        (STEPS, 0x00010001),
        (STEPS, 0),
        (LEAF_IDS, 0),
    ],
    ids=["outside", "twice", "cut off", "no leaf"],
)
def test_nodes_that_lead_astray_are_refused(nested: bytes, field: int, value: int) -> None:
    changed = with_number(nested, field, 0, value, "<u4")
    if field == LEAF_IDS:
        ids = Table.root(nested[HEADER:]).table(1).integers(LEAF_IDS, "<u4")
        leaf = int(np.flatnonzero(ids == 0)[0])
        changed = with_number(nested, field, leaf, 1 << 20, "<u4")
    with pytest.raises(ModelLoadError, match=r"a node|one to one"):
        load_catboost(changed)


def test_flipped_bytes_are_refused_or_harmless(file: bytes, X: FloatArray) -> None:
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(FLIPS):
        flipped = bytearray(file)
        start = int(rng.integers(len(file) - 4))
        flipped[start : start + 4] = (
            rng.choice([0, 0x7FFFFFFF, 0xFFFFFFFF, 0x40000000, 1, 255]).astype("<u4").tobytes()
        )
        try:
            model = load_catboost(bytes(flipped))
            assert model.predict(X[:5]).scores.shape[0] == 5
            model.form()
        except (ModelLoadError, ExplainerError):
            refused += 1
    assert refused > FLIPS // 10


def test_columns_that_were_dropped_are_refused_with_the_way_out(X: FloatArray) -> None:
    model = CatBoostRegressor(**COMMON).fit(np.insert(X, 0, 1.0, axis=1), X[:, 0])
    model.drop_unused_features()
    with pytest.raises(ModelLoadError, match=r"without drop_unused_features|not in order"):
        load_catboost(dump_catboost(model))


def test_without_the_library_the_message_says_how_to_add_it(
    symmetric: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "catboost", None)
    with pytest.raises(ModelLoadError, match="pip install catboost"):
        load_catboost(symmetric)


@pytest.fixture(scope="module")
def with_statistics(X: FloatArray) -> bytes:
    codes = np.random.default_rng(2).integers(9, size=len(X))
    rows = np.column_stack([X.astype(object), codes.astype(str)])
    model = CatBoostClassifier(cat_features=[3], **COMMON).fit(rows, X[:, 0] + codes % 2 > 0.5)
    return dump_catboost(model)


def test_category_statistics_that_are_cut_off_are_refused(with_statistics: bytes) -> None:
    assert read_file_facts(with_statistics).category_columns == (3,)
    core = int.from_bytes(with_statistics[4:HEADER], "little")
    for end in range(HEADER + core, len(with_statistics)):
        with pytest.raises(ModelLoadError, match="category statistics"):
            read_file_facts(with_statistics[:end])


def test_a_split_by_an_absent_category_is_refused(with_statistics: bytes) -> None:
    core = with_statistics[HEADER:]
    combination = Table.root(core).table(1).tables(7)[0].table(0).table(0).table(0)
    place = combination.fields[0]
    start = HEADER + place + int(np.frombuffer(core, "<u4", 1, place)[0]) + 4
    changed = bytearray(with_statistics)
    changed[start : start + 4] = np.array(5, dtype="<i4").tobytes()
    with pytest.raises(ModelLoadError, match="column that is not there"):
        read_file_facts(bytes(changed))
