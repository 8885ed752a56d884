"""Models logged by MLflow: found in its registry, read from their libraries' own files."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.models.errors import ModelLoadError
from service.models.formats import SUFFIXES, Artifact, Format

INSTALL = "MLflow is not installed here; add it with .venv/bin/python -m pip install mlflow-skinny"
SCHEMES = ("models:/", "runs:/")
FILES: Mapping[str, str] = {
    "catboost": "data",
    "lightgbm": "data",
    "onnx": "data",
    "pytorch": "model_data",
    "sklearn": "pickled_model",
    "xgboost": "data",
}
"""By flavour that is read, the key of its file."""

OWN_SUFFIXES: Mapping[tuple[str, str], Format] = {
    ("catboost", ".cb"): "cbm",
    ("lightgbm", ".lgb"): "txt",
}
"""What MLflow calls otherwise than the libraries do."""

HOW_TO_LOG: Mapping[str, str] = {
    "catboost": "log it with mlflow.catboost.log_model(model, format='cbm')",
    "lightgbm": "log model.booster_, or log it with serialization_format='skops'",
    "pytorch": "log it with mlflow.pytorch.log_model(..., serialization_format='pt2')",
    "sklearn": "log it with mlflow.sklearn.log_model(model, serialization_format='skops')",
    "xgboost": "log it with mlflow.xgboost.log_model(model, model_format='ubj')",
}


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """An artifact, and the columns its signature names, if it has one that does."""

    artifact: Artifact
    columns: tuple[str, ...] | None


def read_mlflow(uri: str) -> LoggedModel:
    """Fetch a model: `models:/name@alias`, `models:/name/3`, `runs:/id/path` or a directory.

    Where it is looked for is MLflow's business (`MLFLOW_TRACKING_URI`). ModelLoadError for what is
    not found, and for flavours kept as pickles, with how to log them instead.
    """
    with _folder(uri) as folder:
        described = _described(folder)
        flavour, settings = _flavour(described.flavors)
        path = _file(folder, flavour, settings)
        artifact = Artifact(path.read_bytes(), _format(path, flavour), source=f"mlflow {uri}")
        return LoggedModel(artifact, _columns(described))


def _mlflow() -> Any:  # noqa: ANN401  # the module
    # It reports its use to its makers unless told not to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import mlflow
    except ImportError as error:
        raise ModelLoadError(INSTALL) from error
    return mlflow


@contextmanager
def _folder(uri: str) -> Iterator[Path]:
    local = Path(uri.removeprefix("file://"))
    if not uri.startswith(SCHEMES):
        if not (local / "MLmodel").is_file():
            raise ModelLoadError(
                f"{uri}: use models:/name@alias, models:/name/version, runs:/id/path or a "
                "directory with an MLmodel file"
            )
        yield local
        return
    mlflow = _mlflow()
    with TemporaryDirectory(prefix="explaind-") as target:
        try:
            fetched = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=target)
        except Exception as error:
            # MLflow's own errors, and those of whatever store it talks to.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelLoadError(f"MLflow cannot fetch {uri}: {reason}") from error
        yield Path(fetched)


def _described(folder: Path) -> Any:  # noqa: ANN401  # mlflow.models.Model
    _mlflow()
    from mlflow.models import Model

    try:
        return Model.load(str(folder))
    except Exception as error:
        # YAML's errors, MLflow's, and those of a description with parts missing.
        raise ModelLoadError(f"the MLmodel file cannot be read: {error!r}") from error


def _flavour(flavours: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The library's own flavour; python_function only says how MLflow would unpickle it."""
    found = [name for name in FILES if name in flavours]
    if len(found) != 1:
        listed = ", ".join(sorted(flavours)) or "none"
        raise ModelLoadError(f"its flavours are {listed}; known are {', '.join(FILES)}")
    return found[0], flavours[found[0]]


def _file(folder: Path, flavour: str, settings: Mapping[str, Any]) -> Path:
    name = settings.get(FILES[flavour])
    if not isinstance(name, str):
        raise ModelLoadError(f"the MLmodel file does not say where its {flavour} model is")
    path = (folder / name).resolve()
    if flavour == "pytorch" and path.is_dir():
        path = (path / "model.pt2").resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ModelLoadError(f"the model's file {name!r} lies outside its folder")
    if path.suffix in {".pkl", ".pth"} or not path.is_file():
        kind = settings.get("serialization_format", "pickle")
        raise ModelLoadError(
            f"the {flavour} model is kept as {kind}, which runs code when read; "
            f"{HOW_TO_LOG.get(flavour, 'save it in its own format')}"
            if path.exists() or flavour == "pytorch"
            else f"the model's file {name!r} is not there"
        )
    return path


def _format(path: Path, flavour: str) -> Format:
    known = OWN_SUFFIXES.get((flavour, path.suffix), SUFFIXES.get(path.suffix))
    if known is None:
        advice = HOW_TO_LOG.get(flavour, "log it in its library's own format")
        raise ModelLoadError(f"{path.name}: {flavour} models are not read from this; {advice}")
    return known


def _columns(described: Any) -> tuple[str, ...] | None:  # noqa: ANN401  # mlflow.models.Model
    inputs = None if described.signature is None else described.signature.inputs
    if inputs is None or inputs.is_tensor_spec():
        return None
    names = inputs.input_names()
    return tuple(names) if all(isinstance(name, str) for name in names) else None
