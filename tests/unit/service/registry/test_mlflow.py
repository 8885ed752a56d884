"""Models that MLflow keeps, from a real file store with a registry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tables import breast_cancer

from service.__main__ import main
from service.errors import InvalidInputError
from service.models.errors import ModelLoadError
from service.models.formats import artifact_of_model
from service.models.mlflow import read_mlflow
from service.registry import Registration, Registry

pytest.importorskip("mlflow", reason="mlflow-skinny is an extra")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
]

TARGET = "benign"


@dataclass(frozen=True)
class Kept:
    """A file store with one registered model, its training table, and a scikit-learn model."""

    root: Path
    data: Path
    run: str
    model: Any
    X: pd.DataFrame
    y: pd.Series

    def folder(self, name: str, flavours: dict[str, Any], files: dict[str, bytes]) -> Path:
        """A model directory as MLflow lays it out."""
        folder = self.root / name
        folder.mkdir()
        document = {"flavors": {"python_function": {"loader_module": "mlflow.x"}, **flavours}}
        (folder / "MLmodel").write_text(yaml.safe_dump(document))
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        patch.setenv("MLFLOW_TRACKING_URI", (root / "store").as_uri())
        yield root


@pytest.fixture(scope="module")
def kept(environment: Path) -> Kept:
    import mlflow
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    X, y = breast_cancer()
    X = X.iloc[:, :4]
    data = environment / "train.csv"
    X.assign(**{TARGET: y}).to_csv(data, index=False)
    model = LogisticRegression(max_iter=5000).fit(X.to_numpy(), y)
    folder = environment / "logged"
    mlflow.sklearn.save_model(
        model,
        folder,
        serialization_format="skops",
        signature=infer_signature(X),
        pip_requirements=[],
    )
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    client = mlflow.MlflowClient()
    client.create_registered_model("credit")
    version = client.create_model_version("credit", str(folder))
    client.set_registered_model_alias("credit", "champion", version.version)
    return Kept(environment, data, run.info.run_id, model, X, y)


def registered(kept: Kept, uri: str, into: Path) -> Registration:
    return Registry(into).register_mlflow("credit", uri, kept.data, TARGET)


@pytest.mark.parametrize("kind", ["alias", "version", "run", "folder", "file"])
def test_every_way_to_name_a_model_leads_to_the_same_version(
    kept: Kept, tmp_path: Path, kind: str
) -> None:
    uri = {
        "alias": "models:/credit@champion",
        "version": "models:/credit/1",
        "run": f"runs:/{kept.run}/model",
        "folder": str(kept.root / "logged"),
        "file": (kept.root / "logged").as_uri(),
    }[kind]
    made = registered(kept, uri, tmp_path)
    manifest = made.model.manifest
    assert manifest.artifact.source == f"mlflow {uri}"
    assert manifest.artifact.format == "skops"
    # The model was fitted on an array: its names are the signature's.
    assert manifest.artifact.names == tuple(kept.X.columns)
    assert manifest.explainer.method == "linear"
    stored = (kept.root / "logged" / "model.skops").read_bytes()
    assert (tmp_path / "credit" / "1" / "model.skops").read_bytes() == stored


def boosted(kept: Kept, kind: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    if kind == "xgboost":
        from xgboost import XGBClassifier

        made: Any = XGBClassifier(n_estimators=3, n_jobs=1).fit(kept.X, kept.y)
        entry = {"data": "model.ubj", "model_format": "ubj"}
    elif kind == "lightgbm":
        from lightgbm import LGBMClassifier

        made = LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(kept.X, kept.y)
        # What MLflow writes for a booster: the format is of scikit-learn's wrappers alone.
        entry = {"data": "model.lgb", "serialization_format": "cloudpickle"}
    elif kind == "catboost":
        from catboost import CatBoostClassifier

        made = CatBoostClassifier(iterations=3, verbose=False, allow_writing_files=False)
        made.fit(kept.X, kept.y)
        entry = {"data": "model.cb", "save_format": "cbm"}
    else:
        from skl2onnx import to_onnx

        made = to_onnx(kept.model, kept.X[:1].to_numpy("float32"), options={"zipmap": False})
        entry = {"data": "model.onnx"}
    return {kind: entry}, {entry["data"]: artifact_of_model(made).data}


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost", "onnx"])
def test_native_flavours_are_registered(kept: Kept, tmp_path: Path, kind: str) -> None:
    folder = kept.folder(f"native-{kind}", *boosted(kept, kind))
    made = registered(kept, str(folder), tmp_path)
    libraries = {"onnx": "onnxruntime"}
    assert made.model.manifest.artifact.library == libraries.get(kind, kind)
    assert made.model.manifest.explainer.method is not None


PICKLED = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}


@pytest.mark.parametrize(
    ("flavours", "files", "message"),
    [
        ({"sklearn": PICKLED}, {"model.pkl": b"\x80"}, "cloudpickle.*serialization_format='skops'"),
        ({"lightgbm": {"data": "model.pkl"}}, {"model.pkl": b"\x80"}, "booster_"),
        ({"xgboost": {"data": "model.xgb"}}, {"model.xgb": b"binf"}, "model_format='ubj'"),
        ({"pytorch": {"model_data": "data"}}, {}, "serialization_format='pt2'"),
        ({"xgboost": {"data": "../secret.ubj"}}, {}, "outside its folder"),
        ({"xgboost": {"data": "/etc/hostname"}}, {}, "outside its folder"),
        ({"xgboost": {"data": "model.ubj"}}, {}, "is not there"),
        ({"xgboost": {}}, {}, "does not say where"),
        ({"keras": {"data": "model"}}, {}, "its flavours are keras, python_function"),
        ({}, {}, "its flavours are python_function"),
    ],
)
def test_what_is_kept_as_a_pickle_or_elsewhere_is_refused(
    kept: Kept, tmp_path: Path, flavours: Any, files: Any, message: str
) -> None:
    folder = kept.folder(tmp_path.name, flavours, files)
    with pytest.raises(ModelLoadError, match=message):
        read_mlflow(str(folder))


@pytest.mark.parametrize("file", ["model.ubj", "data", "data/model.pt2"])
def test_links_out_of_the_folder_are_not_followed(kept: Kept, tmp_path: Path, file: str) -> None:
    entries = {"model.ubj": {"xgboost": {"data": "model.ubj"}}}
    folder = kept.folder(tmp_path.name, entries.get(file, {"pytorch": {"model_data": "data"}}), {})
    secret = tmp_path / ("data" if file == "data" else "secret.pt2")
    if file == "data":
        secret.mkdir()
        (secret / "model.pt2").write_bytes(b"secret")
    else:
        secret.write_bytes(b"secret")
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).symlink_to(secret)
    with pytest.raises(ModelLoadError, match="outside its folder"):
        read_mlflow(str(folder))


def test_links_within_the_folder_are_followed(kept: Kept, tmp_path: Path) -> None:
    flavours, files = {"pytorch": {"model_data": "data"}}, {"stored.pt2": b"program"}
    folder = kept.folder(tmp_path.name, flavours, files)
    (folder / "data").mkdir()
    (folder / "data" / "model.pt2").symlink_to(folder / "stored.pt2")
    assert read_mlflow(str(folder)).artifact.data == b"program"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/credit@nobody", "cannot fetch"),
        ("models:/nobody/1", "cannot fetch"),
        ("runs:/0123456789abcdef0123456789abcdef/model", "cannot fetch"),
        ("s3://bucket/model", "use models:/"),
        ("/nowhere", "use models:/"),
    ],
)
@pytest.mark.usefixtures("kept")
def test_what_is_not_there_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        read_mlflow(uri)


def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: [")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        read_mlflow(str(tmp_path))


def renamed(document: dict[str, Any]) -> None:
    inputs = document["signature"]["inputs"]
    document["signature"]["inputs"] = inputs.replace("mean radius", "radius")


def shorter(document: dict[str, Any]) -> None:
    document["signature"]["inputs"] = '[{"type": "double", "name": "mean radius"}]'


@pytest.mark.parametrize(
    ("change", "message"), [(renamed, "the data do not have"), (shorter, "1 column names")]
)
def test_a_signature_of_other_columns_is_refused(
    kept: Kept, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    import shutil

    twin = tmp_path / "twin"
    shutil.copytree(kept.root / "logged", twin)
    document = yaml.safe_load((twin / "MLmodel").read_text())
    change(document)
    (twin / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(InvalidInputError, match=message):
        registered(kept, str(twin), tmp_path / "registry")


def test_a_signature_that_contradicts_the_models_own_names_is_refused(
    kept: Kept, tmp_path: Path
) -> None:
    flavours, files = boosted(kept, "xgboost")
    folder = kept.folder("contradicted", flavours, files)
    document = yaml.safe_load((folder / "MLmodel").read_text())
    document["signature"] = {"inputs": '[{"type": "double", "name": "nose"}]', "outputs": None}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(InvalidInputError, match=r"does not fit its columns.*nose"):
        registered(kept, str(folder), tmp_path)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--mlflow", "models:/credit@champion"], 0),
        (["--mlflow", "models:/credit@nobody"], 4),
        ([], 2),
        (["--mlflow", "models:/credit/1", "--model", "model.ubj"], 2),
    ],
)
def test_command_takes_a_uri_in_place_of_a_file(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int
) -> None:
    arguments = ["register", "credit", "--data", str(kept.data), "--target", TARGET]
    command = ["explaind", *arguments, "--data-dir", str(tmp_path), *options]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == code
    assert (tmp_path / "registry" / "credit").exists() == (code == 0)
