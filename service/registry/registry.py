"""The registry: register, load, promote, roll back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from explainers.base import ExplainerError, Level
from service.errors import InvalidInputError, UnknownError
from service.models.base import NativeModel
from service.models.errors import ModelLoadError
from service.models.formats import Artifact, artifact_of_file, artifact_of_model, load_model
from service.models.mlflow import read_mlflow
from service.registry.classes import survives_reading
from service.registry.layout import Layout, check_name
from service.registry.registered import RegisteredModel, load_version
from service.registry.registering import register_version
from service.registry.rollouts import end_held
from service.registry.tables import check_unique, column_names, read_frame, split_target
from service.registry.work import Options, Report, Source

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Progress = Callable[[str], None]


def _silent(_: str) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """What a registration made: the checked version, and what a person should read of it."""

    model: RegisteredModel
    report: Report


@dataclass(slots=True)
class Registry:
    """A directory of immutable versions. Several processes may read while one registers."""

    path: Path | str
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        self.layout = Layout(Path(self.path))

    def register_file(
        self,
        name: str,
        model: Path,
        data: Path,
        target: str,
        *,
        options: Options | None = None,
        on_progress: Progress = _silent,
    ) -> Registration:
        """Register a model file with the table it was trained on."""
        options = options or Options()
        check_name(name)
        names = tuple(column for column in column_names(data) if column != target)
        try:
            on_progress(f"reading {model.name}")
            artifact = artifact_of_file(model)
        except OSError as error:
            raise InvalidInputError(f"{model}: {error.strerror}") from error
        except ModelLoadError as error:
            raise InvalidInputError(str(error)) from error
        native = _load(artifact, names, options)
        source = _source(artifact, native, data, target, options, on_progress)
        return Registration(*register_version(self.layout, name, source, options, on_progress))

    def register_mlflow(
        self,
        name: str,
        uri: str,
        data: Path,
        target: str,
        *,
        options: Options | None = None,
        on_progress: Progress = _silent,
    ) -> Registration:
        """Register a model that MLflow keeps, with the table it was trained on; its signature, if
        it has one, names the columns. `read_mlflow` says which URIs and flavours.
        """
        options = options or Options()
        check_name(name)
        in_data = tuple(column for column in column_names(data) if column != target)
        try:
            on_progress(f"fetching {uri}")
            logged = read_mlflow(uri)
        except OSError as error:
            raise InvalidInputError(f"{uri}: {error.strerror}") from error
        except ModelLoadError as error:
            raise InvalidInputError(str(error)) from error
        native = _load(logged.artifact, logged.columns or in_data, options)
        _check_signature(logged.columns, native)
        source = _source(logged.artifact, native, data, target, options, on_progress)
        return Registration(*register_version(self.layout, name, source, options, on_progress))

    def register(
        self,
        name: str,
        model: object,
        X: "pd.DataFrame | np.ndarray",
        y: "pd.Series | np.ndarray | Sequence[Level]",
        *,
        options: Options | None = None,
        on_progress: Progress = _silent,
    ) -> Registration:
        """Register a fitted model from Python; its native format is saved, never a pickle."""
        import pandas as pd

        options = options or Options()
        check_name(name)
        frame = _frame(X)
        labels = pd.Series(y).reset_index(drop=True)
        if len(labels) != len(frame) or labels.isna().any():
            raise InvalidInputError(f"y must have {len(frame)} entries, none of them missing")
        try:
            artifact = artifact_of_model(model)
        except (ModelLoadError, ExplainerError) as error:
            raise InvalidInputError(str(error)) from error
        native = _load(artifact, tuple(frame.columns), options)
        source = Source(artifact, native, frame, labels)
        return Registration(*register_version(self.layout, name, source, options, on_progress))

    def load(self, name: str, version: int, *, for_worker: bool = False) -> RegisteredModel:
        """A version, digests and golden values checked; for_worker: see `load_version`."""
        return load_version(self.layout, name, version, for_worker=for_worker)

    def serving(self, name: str) -> RegisteredModel:
        """The serving version of a name; UnknownError when nothing is registered under it."""
        version = self.layout.serving(name)
        if version is None:
            raise UnknownError(f"no model {name!r} is registered in {self.layout.root}")
        return self.load(name, version)

    def promote(self, name: str, version: int) -> RegisteredModel:
        """Let a version serve, after loading and checking it; on failure the old one stays. What
        was tried beside the old one is tried no more.
        """
        model = self.load(name, version, for_worker=True)
        with self.layout.lock():
            is_change = self.layout.serving(name) != version
            self.layout.set_serving(name, version)
            if is_change:
                end_held(self.layout, name, f"version {version} was promoted")
        return model

    def rollback(self, name: str) -> RegisteredModel:
        """Let the version that served before serve again, and nothing be tried beside it."""
        if self.layout.serving(name) is None:
            raise UnknownError(f"no model {name!r} is registered in {self.layout.root}")
        version = self.layout.previous(name)
        if version is None:
            raise UnknownError(f"no other version of {name!r} has served before")
        model = self.load(name, version, for_worker=True)
        with self.layout.lock():
            self.layout.step_back(name, version)
            end_held(self.layout, name, "rolled back")
        return model


def _load(artifact: Artifact, names: tuple[str, ...], options: Options) -> NativeModel:
    try:
        return load_model(artifact, names=names, categories=options.categories)
    except (ModelLoadError, ExplainerError) as error:
        raise InvalidInputError(str(error)) from error


def _source(
    artifact: Artifact,
    native: NativeModel,
    data: Path,
    target: str,
    options: Options,
    on_progress: Progress,
) -> Source:
    if target in native.columns.raw.names:
        raise InvalidInputError(f"the model reads the target {target!r} as an input column")
    on_progress(f"reading {data.name}")
    frame, labels = split_target(
        read_frame(data, text_columns=_text_columns(native, target, options)), target
    )
    return Source(artifact, native, frame, labels)


def _check_signature(signed: tuple[str, ...] | None, native: NativeModel) -> None:
    own = native.columns.raw.names
    if signed is not None and {*signed} != {*own}:
        missing, strange = sorted({*own} - {*signed}), sorted({*signed} - {*own})
        raise InvalidInputError(
            f"the model's signature does not fit its columns: it lacks {missing[:10]} and names "
            f"{strange[:10]}, which the model does not read"
        )


def _text_columns(native: NativeModel, target: str, options: Options) -> list[str]:
    """Columns whose levels, or classes, are text even where they look like numbers."""
    raw = native.columns.raw
    known = {**dict(zip(raw.names, raw.levels, strict=True)), target: native.classes}
    columns = [
        column
        for column, levels in known.items()
        if levels is not None and all(isinstance(level, str) for level in levels)
    ]
    return columns if survives_reading(options.classes or ()) else [*columns, target]


def _frame(X: "pd.DataFrame | np.ndarray") -> "pd.DataFrame":
    """Columns named as libraries name them: by their text, or x0, x1, ... for an array's."""
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X.set_axis(check_unique(map(str, X.columns)), axis=1)
    frame = pd.DataFrame(X).infer_objects()
    return frame.set_axis([f"x{index}" for index in range(frame.shape[1])], axis=1)
