"""ONNX graphs as exporters write them, and files that must not reach the runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from skl2onnx import to_onnx  # noqa: E402
from sklearn import ensemble, linear_model, neighbors, neural_network, svm  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.datasets import load_diabetes, load_wine  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

from explainers.base import UnsupportedModelError  # noqa: E402
from service.models.errors import ModelLoadError, UnknownCategoriesError  # noqa: E402
from service.models.formats import Artifact, artifact_of_model, load_model  # noqa: E402
from service.models.onnx import OnnxModel, load_onnx  # noqa: E402

X, CODES = load_wine(return_X_y=True)
X = X[:, :5]
NAMES = np.array(["barbera", "dolcetto", "nebbiolo"])[CODES]
SCALED = make_pipeline(StandardScaler(), linear_model.LogisticRegression())
MLP = neural_network.MLPClassifier((6,), solver="lbfgs", max_iter=2000, alpha=1.0, random_state=0)
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: SCALED,
    "forest": lambda: ensemble.RandomForestClassifier(7, max_depth=4, random_state=0),
    "mlp": lambda: make_pipeline(StandardScaler(), MLP),
    "nearest": neighbors.KNeighborsClassifier,
    "stacking": lambda: ensemble.StackingClassifier(
        [("a", SCALED), ("b", ensemble.RandomForestClassifier(5, random_state=0))], cv=3
    ),
}


def exported(model: Any, sample: Any = None, **options: Any) -> Any:
    first = X[:1].astype(np.float32) if sample is None else sample
    return to_onnx(model, first, options=options or None)


def library(graph: Any, rows: np.ndarray) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: rows.astype(np.float32)})


@pytest.mark.parametrize("labels", ["codes", "names"])
@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_exported_classifiers_are_served_as_the_runtime_does(
    name: str, *, zipmap: bool, labels: str
) -> None:
    y = CODES if labels == "codes" else NAMES
    graph = exported(CLASSIFIERS[name]().fit(X, y), zipmap=zipmap)
    adapter = load_onnx(graph.SerializeToString())
    assert isinstance(adapter, OnnxModel)
    assert adapter.classes == tuple(np.unique(y).tolist())
    assert (adapter.task, adapter.n_classes) == ("multiclass", 3)
    rows = X[::20]
    expected = []
    for row in rows:
        found = library(graph, row[None, :])[1]
        expected.append(list(found[0].values()) if zipmap else found[0])
    served = adapter.predict(rows)
    np.testing.assert_array_equal(served.scores, np.array(expected, dtype=np.float64))
    np.testing.assert_allclose(adapter.evaluate(rows), served.outputs, atol=1e-6)
    with pytest.raises(UnsupportedModelError):
        adapter.form()


def test_two_classes_are_explained_by_the_second() -> None:
    graph = exported(CLASSIFIERS["mlp"]().fit(X, CODES == 1), zipmap=False)
    adapter = load_onnx(graph.SerializeToString())
    served = adapter.predict(X[:5])
    assert (adapter.task, adapter.classes) == ("binary", (0, 1))
    np.testing.assert_array_equal(served.outputs[:, 0], served.scores[:, 1])


def test_a_librarys_own_order_of_classes_survives_a_map(tmp_path: Path) -> None:
    catboost = pytest.importorskip("catboost")
    names = ["low", "medium", "high"]
    model = catboost.CatBoostClassifier(
        iterations=5, verbose=False, class_names=names, allow_writing_files=False
    )
    model.fit(X, np.array(names)[CODES]).save_model(tmp_path / "model.onnx", format="onnx")
    adapter = load_onnx((tmp_path / "model.onnx").read_bytes())
    assert adapter.classes == ("low", "medium", "high")
    rows = X[::20]
    np.testing.assert_allclose(adapter.predict(rows).scores, model.predict_proba(rows), atol=1e-6)
    np.testing.assert_allclose(adapter.evaluate(rows), model.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("labels", [[2, -1, 10], [0, 1, 1]])
def test_whole_numbers_as_classes_survive_a_map_or_are_refused(labels: list[int]) -> None:
    nodes = [
        helper.make_node("Softmax", ["X"], ["P"]),
        helper.make_node("ZipMap", ["P"], ["Y"], domain="ai.onnx.ml", classlabels_int64s=labels),
    ]
    model = small(nodes, shape=("rows", 3), domains=(("", 18), ("ai.onnx.ml", 1)))
    share = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    kind = helper.make_map_type_proto(TensorProto.INT64, share)
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(kind))
    data = model.SerializeToString()
    if len(set(labels)) < 3:
        with pytest.raises(ModelLoadError, match="each class once"):
            load_onnx(data)
        return
    adapter = load_onnx(data)
    assert adapter.classes == tuple(labels)
    found = adapter.predict(np.array([[3.0, 2.0, 1.0]])).scores[0]
    assert found.tolist() == sorted(found.tolist(), reverse=True)


@pytest.mark.parametrize("model", [svm.SVR(), ensemble.RandomForestRegressor(5, random_state=0)])
def test_exported_regressors_are_served_as_the_runtime_does(model: Any) -> None:
    rows, y = load_diabetes(return_X_y=True)
    graph = exported(model.fit(rows, y), rows[:1].astype(np.float32))
    adapter = load_onnx(graph.SerializeToString())
    expected = np.vstack([library(graph, row[None, :])[0] for row in rows[:20]])
    np.testing.assert_array_equal(adapter.predict(rows[:20]).outputs, expected.astype(np.float64))
    assert adapter.task == "regression"
    assert adapter.is_float32


def mixed() -> tuple[Any, pd.DataFrame]:
    frame = pd.DataFrame({"size": X[:, 0], "count": CODES * 2 + 1, "grape": NAMES})
    steps = make_column_transformer(
        (StandardScaler(), ["size", "count"]), (OneHotEncoder(), ["grape"])
    )
    return make_pipeline(steps, linear_model.LogisticRegression()).fit(frame, CODES == 1), frame


LEVELS = {"grape": ("barbera", "dolcetto", "nebbiolo")}


def test_one_input_per_column_takes_texts_and_integers() -> None:
    model, frame = mixed()
    graph = to_onnx(model, frame[:1], options={"zipmap": False})
    adapter = load_onnx(graph.SerializeToString(), names=("no", "use"), categories=LEVELS)
    assert adapter.columns.raw.names == ("size", "count", "grape")
    assert not adapter.columns.names_are_given
    assert adapter.columns.accepts_missing == (False, False, False)
    rows = np.column_stack([frame["size"], frame["count"], CODES])
    np.testing.assert_allclose(adapter.predict(rows).scores, model.predict_proba(frame), atol=1e-6)
    rows[0, 1] = np.nan
    with pytest.raises(ValueError, match="missing"):
        adapter.predict(rows[:1])


@pytest.mark.parametrize(
    ("categories", "error"),
    [({}, UnknownCategoriesError), ({"grape": (1, 2, 3)}, ModelLoadError)],
)
def test_texts_need_their_levels(categories: Any, error: Any) -> None:
    model, frame = mixed()
    graph = to_onnx(model, frame[:1], options={"zipmap": False})
    with pytest.raises(error, match="grape"):
        load_onnx(graph.SerializeToString(), categories=categories)


def test_a_matrix_gets_its_names_from_the_data() -> None:
    graph = exported(CLASSIFIERS["forest"]().fit(X, CODES))
    adapter = load_model(artifact_of_model(graph), names=tuple("abcde"))
    assert adapter.columns.raw.names == tuple("abcde")
    assert adapter.columns.names_are_given
    assert adapter.format == "onnx"
    with pytest.raises(ModelLoadError, match="2 column names"):
        load_model(artifact_of_model(graph), names=("a", "b"))


def small(
    nodes: list[Any],
    *,
    shape: Any = ("rows", 2),
    out: Any = (("Y", TensorProto.FLOAT, ("rows", 1)),),
    tensors: Any = (),
    domains: Any = (("", 18),),
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(*value) for value in out],
        [*tensors, numpy_helper.from_array(np.ones((2, 1), np.float32), "W")],
    )
    opsets = [helper.make_opsetid(*domain) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


PRODUCT = helper.make_node("MatMul", ["X", "W"], ["Y"])


TURNED = [("Y", TensorProto.FLOAT, (2, "rows"))]


def test_graphs_of_one_row_at_a_time_are_evaluated_row_by_row() -> None:
    adapter = load_onnx(small([PRODUCT], shape=(1, 2)).SerializeToString())
    np.testing.assert_array_equal(adapter.evaluate(np.ones((3, 2))), np.full((3, 1), 2.0))


def test_one_rows_result_may_be_squeezed() -> None:
    nodes = [
        helper.make_node("MatMul", ["X", "W"], ["P"]),
        helper.make_node("Squeeze", ["P"], ["Y"]),
    ]
    model = small(nodes, out=[("Y", TensorProto.FLOAT, None)])
    adapter = load_onnx(model.SerializeToString())
    rows = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(adapter.predict(rows).outputs, rows.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(adapter.evaluate(rows), rows.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(adapter.evaluate(rows[:1]), [[1.0]])


def test_missing_values_are_taken_where_the_graph_gives_a_number() -> None:
    floor = numpy_helper.from_array(np.float32(0), "floor")
    nodes = [
        helper.make_node("IsNaN", ["X"], ["gaps"]),
        helper.make_node("Where", ["gaps", "floor", "X"], ["filled"]),
        helper.make_node("MatMul", ["filled", "W"], ["Y"]),
    ]
    filled = load_onnx(small(nodes, tensors=[floor]).SerializeToString())
    assert filled.columns.accepts_missing == (True, True)
    plain = load_onnx(small([PRODUCT]).SerializeToString())
    assert plain.columns.accepts_missing == (False, False)


def outside() -> Any:
    model = small([PRODUCT])
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model


def outside_within() -> Any:
    """The same, in a constant of a branch."""
    tensor = numpy_helper.from_array(np.ones((2, 1), np.float32), "W2")
    tensor.external_data.add(key="location", value="../weights.bin")
    constant = helper.make_node("Constant", [], ["V"], value=tensor)
    value = helper.make_tensor_value_info("V", TensorProto.FLOAT, (2, 1))
    branch = helper.make_graph([constant], "branch", [], [value])
    chosen = helper.make_node("If", ["yes"], ["V2"], then_branch=branch, else_branch=branch)
    product = helper.make_node("MatMul", ["X", "V2"], ["Y"])
    yes = numpy_helper.from_array(np.ones((), np.bool_), "yes")
    return small([chosen, product], tensors=[yes])


def drawn() -> Any:
    noise = helper.make_node("RandomNormalLike", ["P"], ["N"])
    product = helper.make_node("MatMul", ["X", "W"], ["P"])
    return small([product, noise, helper.make_node("Add", ["P", "N"], ["Y"])])


def endless() -> Any:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Identity", ["in"], ["out"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, ()),
            value("go", TensorProto.BOOL, ()),
            value("in", TensorProto.FLOAT, ()),
        ],
        [value("again", TensorProto.BOOL, ()), value("out", TensorProto.FLOAT, ())],
    )
    product = helper.make_node("MatMul", ["X", "W"], ["P"])
    return small([product, helper.make_node("Loop", ["", "", "P"], ["Y"], body=body)])


def foreign() -> Any:
    node = helper.make_node("FusedMatMul", ["X", "W"], ["Y"], domain="com.microsoft")
    return small([node], domains=(("", 18), ("com.microsoft", 1)))


def cut() -> bytes:
    data: bytes = small([PRODUCT]).SerializeToString()
    return data[:-40]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (outside, "another file"),
        (outside_within, "another file"),
        (drawn, "at random"),
        (endless, "never end"),
        (foreign, "not of the standard"),
        (lambda: small([PRODUCT], domains=(("", 9999),)), "ONNX Runtime refuses"),
        (lambda: small([helper.make_node("Nothing", ["X"], ["Y"])]), "ONNX Runtime refuses"),
        (lambda: small([PRODUCT], shape=("rows", 2, 2)), "no columns"),
        (lambda: small([PRODUCT], shape=(4, 2)), "4 rows at a time"),
        (lambda: small([PRODUCT], shape=("rows", "columns")), "how many columns"),
        (lambda: small([PRODUCT], shape=("rows", 3)), "ONNX Runtime"),
        (
            lambda: small(
                [PRODUCT, helper.make_node("Identity", ["Y"], ["Z"])],
                out=[(name, TensorProto.FLOAT, ("rows", 1)) for name in "YZ"],
            ),
            "outputs are",
        ),
        (
            lambda: small(
                [helper.make_node("Identity", ["X"], ["Y"])],
                out=[("Y", TensorProto.FLOAT, ("rows", 2))],
            ),
            "sum to one",
        ),
        (
            lambda: small([helper.make_node("Transpose", ["X"], ["Y"])], out=TURNED),
            r"gives \(2, 1\) for 1 rows",
        ),
        (cut, "broken ONNX|refuses|not an ONNX"),
        (lambda: b"", "not an ONNX"),
        (lambda: b"\x80\x04\x95pickle", "ONNX"),
        (lambda: b"\xff" * 64, "broken ONNX"),
    ],
)
def test_files_that_cannot_be_trusted_or_served_are_refused(make: Any, message: str) -> None:
    made = make()
    data = made if isinstance(made, bytes) else made.SerializeToString()
    with pytest.raises(ModelLoadError, match=message):
        load_model(Artifact(data, "onnx"))


def test_trees_that_lead_astray_are_refused_by_the_runtime() -> None:
    model = ensemble.RandomForestClassifier(3, max_depth=3, random_state=0)
    for attribute, value in {
        "nodes_truenodeids": 0,
        "nodes_falsenodeids": 10**6,
        "nodes_featureids": 10**7,
        "class_ids": 10**6,
    }.items():
        graph = exported(model.fit(X, CODES), zipmap=False)
        (trees,) = [n for n in graph.graph.node if n.op_type == "TreeEnsembleClassifier"]
        (numbers,) = [a for a in trees.attribute if a.name == attribute]
        numbers.ints[0] = value
        with pytest.raises(ModelLoadError, match="ONNX Runtime"):
            load_onnx(graph.SerializeToString())
