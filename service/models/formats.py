"""From bytes and a format name to a loaded model, and back for models handed over in Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from explainers.base import Level
from service.models.base import NativeModel
from service.models.catboost import dump_catboost, load_catboost
from service.models.errors import ModelLoadError
from service.models.lightgbm import dump_lightgbm, load_lightgbm
from service.models.onnx import load_onnx
from service.models.sklearn import dump_sklearn, load_sklearn
from service.models.xgboost import dump_xgboost, load_xgboost

Format = Literal["ubj", "json", "txt", "skops", "cbm", "onnx"]

SUFFIXES: dict[str, Format] = {
    ".ubj": "ubj",
    ".json": "json",
    ".txt": "txt",
    ".skops": "skops",
    ".cbm": "cbm",
    ".onnx": "onnx",
}
PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"})
HOW_TO_CONVERT = (
    "save it in its library's own format instead: XGBoost model.save_model('model.ubj'), "
    "LightGBM booster.save_model('model.txt'), CatBoost model.save_model('model.cbm'), "
    "scikit-learn skops.io.dump(model, 'model.skops'), any that exports one an ONNX graph"
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's bytes as they are stored, parsed and hashed."""

    data: bytes
    format: Format
    classes: tuple[Level, ...] | None = None


def artifact_of_file(path: Path) -> Artifact:
    """Read an artifact; its suffix names the format. Pickle flavours are refused."""
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise ModelLoadError(
            f"{path.name} is a pickle, which runs code when read; {HOW_TO_CONVERT}"
        )
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ModelLoadError(f"{path.name}: unknown format; known are {known}; {HOW_TO_CONVERT}")
    return Artifact(path.read_bytes(), SUFFIXES[suffix])


def artifact_of_model(model: object) -> Artifact:
    """Serialise a fitted model in its library's native format."""
    library = type(model).__module__.partition(".")[0]
    if library == "xgboost":
        data, classes = dump_xgboost(model)
        return Artifact(data, "ubj", classes)
    if library == "lightgbm":
        data, classes = dump_lightgbm(model)
        return Artifact(data, "txt", classes)
    if library == "catboost":
        return Artifact(dump_catboost(model), "cbm")
    if library == "sklearn":
        data, classes = dump_sklearn(model)
        return Artifact(data, "skops", classes)
    if library == "onnx" and hasattr(model, "SerializeToString"):
        return Artifact(model.SerializeToString(), "onnx")
    raise ModelLoadError(f"{type(model).__qualname__} from {library}: no adapter for this library")


def load_model(
    artifact: Artifact,
    *,
    names: tuple[str, ...] | None = None,
    categories: Mapping[str, tuple[Level, ...]] | None = None,
) -> NativeModel:
    """Parse the artifact. names and categories serve only where it stores none of its own."""
    levels = categories or {}
    data = artifact.data
    match artifact.format:
        case "ubj" | "json":
            return load_xgboost(data, format=artifact.format, names=names, categories=levels)
        case "txt":
            return load_lightgbm(data, names=names, categories=levels)
        case "cbm":
            return load_catboost(data, names=names, categories=levels)
        case "onnx":
            return load_onnx(data, names=names, categories=levels)
        case "skops":
            return load_sklearn(data, names=names, categories=levels)
