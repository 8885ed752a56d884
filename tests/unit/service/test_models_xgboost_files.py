import json
from typing import Any

import numpy as np
import pytest
import xgboost

from service.models.errors import ModelLoadError
from service.models.ubjson import read_ubjson
from service.models.xgboost import load_xgboost


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    X[:, 3] = rng.integers(0, 5, len(X))
    data = xgboost.DMatrix(
        X,
        X[:, 0] * X[:, 1] + np.isin(X[:, 3], [1, 2]) > 0.5,
        feature_types=["q", "q", "q", "c"],
        enable_categorical=True,
    )
    parameters = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
    booster = xgboost.train(parameters, data, 15)
    booster.set_attr(best_iteration="14")
    return booster


CATEGORIES = {"f3": tuple("abcde")}


@pytest.mark.parametrize("format_", ["ubj", "json"])
def test_the_whole_file_is_read(booster: xgboost.Booster, format_: Any) -> None:
    data = bytes(booster.save_raw(format_))
    assert load_xgboost(data, format=format_, categories=CATEGORIES).trees_used == 15


def test_both_formats_hold_the_same_document(booster: xgboost.Booster) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(entry) for name, entry in value.items()}
        if isinstance(value, list | np.ndarray):
            return [plain(entry) for entry in value]
        return pytest.approx(value, rel=1e-7) if isinstance(value, float) else value

    from_json = json.loads(booster.save_raw("json"))
    assert from_json == plain(read_ubjson(bytes(booster.save_raw("ubj"))))


def test_truncated_files_are_refused(booster: xgboost.Booster) -> None:
    for format_ in ("ubj", "json"):
        data = bytes(booster.save_raw(format_))
        for end in range(0, len(data), len(data) // 40):
            with pytest.raises(ModelLoadError):
                load_xgboost(data[:end], format=format_, categories=CATEGORIES)


@pytest.mark.parametrize("format_", ["ubj", "json"])
@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"<html>", b"\x80\x04pickle", b"{" * 99]
)
def test_other_files_are_refused(data: bytes, format_: Any) -> None:
    with pytest.raises(ModelLoadError):
        load_xgboost(data, format=format_)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("gradient_booster", "model", "tree_info"), [7] * 15),
        (("gradient_booster", "model", "iteration_indptr"), [0]),
        (("gradient_booster", "model", "trees", 3, "left_children"), [0] * 15),
        (("gradient_booster", "model", "trees", 3, "split_indices"), [10**6] * 15),
        (("gradient_booster", "model", "trees", 3, "sum_hessian"), [1.0]),
        (("attributes", "best_iteration"), "99"),
        (("learner_model_param", "num_feature"), "2"),
        (("learner_model_param", "num_class"), "many"),
        (("feature_names",), ["one"]),
        (("feature_types",), 3),
    ],
)
def test_files_that_would_crash_the_library_are_refused(
    booster: xgboost.Booster, place: tuple[Any, ...], value: Any
) -> None:
    document = json.loads(booster.save_raw("json"))
    *path, last = place
    target = document["learner"]
    for step in path:
        target = target[step]
    target[last] = value
    with pytest.raises(ModelLoadError):
        load_xgboost(json.dumps(document).encode(), format="json", categories=CATEGORIES)


def test_files_without_iteration_starts_count_their_trees(booster: xgboost.Booster) -> None:
    document = json.loads(booster.save_raw("json"))
    del document["learner"]["gradient_booster"]["model"]["iteration_indptr"]
    document["learner"]["attributes"]["best_iteration"] = "6"
    data = json.dumps(document).encode()
    assert load_xgboost(data, format="json", categories=CATEGORIES).trees_used == 7


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{i\x01ai\x05i\x01bSi\x02hi}", {"a": 5, "b": "hi"}),
        (b"[TFZ]", [True, False, None]),
        (b"[#i\x02i\x01U\xff", [1, 255]),
        (b"[[]D\x3f\xf8\0\0\0\0\0\0]", [[], 1.5]),
    ],
)
def test_ubjson_values_are_read(data: bytes, expected: object) -> None:
    assert read_ubjson(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"[i\x01", b"[$i#i\x09\0", b"[$Z#i\x02", b"[#i\xff", b"[#l\x7f\xff\xff\xff", b"{S}",
        b"Si\x01\xff",
        b"i\x01i", b"?", b"Sd\0\0\0\0", b"[" * 80 + b"]" * 80,
    ],
)  # fmt: skip
def test_broken_ubjson_is_refused(data: bytes) -> None:
    with pytest.raises(ModelLoadError):
        read_ubjson(data)
