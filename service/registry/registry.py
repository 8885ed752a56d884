"""The registry: register, load, promote, roll back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from explainers.base import Level
from service.errors import InvalidInputError, UnknownError
from service.models.errors import ModelLoadError
from service.models.formats import artifact_of_file, artifact_of_model, load_model
from service.registry.layout import Layout, check_name
from service.registry.registered import RegisteredModel, load_version
from service.registry.registering import register_version
from service.registry.tables import column_names, read_frame, split_target
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
        try:
            artifact = artifact_of_file(model)
            names = tuple(column for column in column_names(data) if column != target)
            on_progress(f"reading {model.name}")
            native = load_model(artifact, names=names, categories=options.categories)
        except OSError as error:
            raise InvalidInputError(f"{model}: {error.strerror}") from error
        except ModelLoadError as error:
            raise InvalidInputError(str(error)) from error
        on_progress(f"reading {data.name}")
        raw = native.columns.raw
        text = [
            column
            for column, levels in zip(raw.names, raw.levels, strict=True)
            if levels is not None and all(isinstance(level, str) for level in levels)
        ]
        frame, labels = split_target(read_frame(data, text_columns=text), target)
        source = Source(artifact, native, frame, labels)
        return self._finish(register_version(self.layout, name, source, options, on_progress))

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
        frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
        frame = frame.rename(columns={i: f"x{i}" for i in frame.columns if isinstance(i, int)})
        labels = y if isinstance(y, pd.Series) else pd.Series(y)
        if len(labels) != len(frame) or labels.isna().any():
            raise InvalidInputError(f"y must have {len(frame)} entries, none of them missing")
        try:
            artifact = artifact_of_model(model)
            native = load_model(
                artifact, names=tuple(map(str, frame.columns)), categories=options.categories
            )
        except ModelLoadError as error:
            raise InvalidInputError(str(error)) from error
        source = Source(artifact, native, frame, labels.reset_index(drop=True))
        return self._finish(register_version(self.layout, name, source, options, on_progress))

    def _finish(self, made: tuple[int, Report]) -> Registration:
        version, report = made
        model = self.load(report.name, version)
        if self.layout.serving(report.name) is None:
            self.layout.set_serving(report.name, version)
        return Registration(model, report)

    def load(self, name: str, version: int) -> RegisteredModel:
        """A version, digests and golden values checked."""
        return load_version(self.layout, name, version)

    def serving(self, name: str) -> RegisteredModel:
        """The serving version of a name; UnknownError when nothing is registered under it."""
        version = self.layout.serving(name)
        if version is None:
            raise UnknownError(f"no model {name!r} is registered in {self.layout.root}")
        return self.load(name, version)

    def serving_versions(self) -> Mapping[str, int]:
        """The serving version of every name: what a running service follows."""
        found = {name: self.layout.serving(name) for name in self.layout.names()}
        return {name: version for name, version in found.items() if version is not None}

    def promote(self, name: str, version: int) -> RegisteredModel:
        """Let a version serve, after loading and checking it; on failure the old one stays."""
        model = self.load(name, version)
        self.layout.set_serving(name, version)
        return model

    def rollback(self, name: str) -> RegisteredModel:
        """Let the version that served before serve again."""
        if self.layout.serving(name) is None:
            raise UnknownError(f"no model {name!r} is registered in {self.layout.root}")
        version = self.layout.previous(name)
        if version is None:
            raise UnknownError(f"no other version of {name!r} has served before")
        return self.promote(name, version)
