"""One version, loaded and checked: everything a request needs, swapped as one object."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import orjson

from explainers.base import (
    Background,
    Engine,
    Explainer,
    ExplainerError,
    FloatArray,
    Level,
    Naming,
    OutdatedTablesError,
)
from explainers.checks import Invariants
from schemas import ModelSchema, RowCodec, SchemaError, SeenRanges
from service.logs import log
from service.models.base import NativeModel
from service.models.errors import ModelLoadError
from service.models.formats import Artifact, load_model
from service.registry.building import ExplainerFactory
from service.registry.errors import DamagedVersionError, GoldenMismatchError
from service.registry.inference import rows_of
from service.registry.layout import TABLES, Layout, read_files, sha256_of
from service.registry.manifest import Manifest

GOLDEN_TOLERANCE = {True: 1e-5, False: 1e-9}
"""Largest relative gap to the golden outputs, scores and base values, by float32 or not."""


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredModel:
    """Predictor, explainer, row type and digests of one version; never mixed with another's.

    explainer is None, with manifest.explainer.reason saying why, when no exact one exists.
    """

    manifest: Manifest
    digest: str
    schema: ModelSchema
    codec: RowCodec
    native: NativeModel
    explainer: Explainer | None
    background: Background
    invariants: Invariants | None
    """What explanations are held to; None without an explainer."""
    seen: SeenRanges
    sample: Mapping[str, Level | None]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def engine(self) -> Engine | None:
        """What computes explanations here and now; a later release may have a better one."""
        return None if self.explainer is None else self.explainer.engine

    @property
    def version(self) -> int:
        """The version's number."""
        return self.manifest.version


def naming_of(manifest: Manifest, schema: ModelSchema) -> Naming:
    """What the axes of this version's explanations are called."""
    return Naming(
        tuple(column.name for column in schema.columns),
        manifest.explainer.output_names,
        manifest.explainer.output_space,
    )


def load_version(layout: Layout, name: str, version: int) -> RegisteredModel:
    """Read, check every digest, restore the explainer and compare with the golden values.

    Raises DamagedVersionError or GoldenMismatchError; nothing unchecked is ever returned.
    """
    return load_folder(layout.folder(name, version), name, version)


def load_folder(folder: Path, name: str, version: int) -> RegisteredModel:
    """`load_version` from a folder of any name, such as a draft."""
    manifest_bytes, contents = read_files(folder)
    manifest = Manifest.model_validate_json(manifest_bytes)
    if (manifest.name, manifest.version) != (name, version):
        raise DamagedVersionError(f"{name}/{version} holds {manifest.name}/{manifest.version}")
    try:
        model = _assemble(manifest, sha256_of(manifest_bytes), contents)
        check_golden(model, orjson.loads(contents["golden.json"]))
    except (ModelLoadError, ExplainerError, SchemaError) as error:
        raise DamagedVersionError(f"{name}/{version}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DamagedVersionError(f"{name}/{version}: its files do not fit: {error!r}") from error
    return model


def _assemble(manifest: Manifest, digest: str, contents: Mapping[str, bytes]) -> RegisteredModel:
    schema = ModelSchema.from_json(contents["schema.json"])
    native = load_model(
        Artifact(contents[manifest.artifact.file], manifest.artifact.format),
        names=manifest.artifact.names,
        categories=manifest.artifact.categories,
    )
    background = Background(
        rows_of(schema, orjson.loads(contents["background.json"])),
        sha256_of(contents["background.json"]),
    )
    _check_identity(manifest, schema, native, background)
    explainer = invariants = None
    if manifest.explainer.method is not None:
        factory = ExplainerFactory.for_model(native, naming_of(manifest, schema))
        explainer = _explainer(factory, background, manifest, contents.get(TABLES))
        invariants = Invariants(
            explainer.tolerance,
            explainer.output_scale,
            factory.unused_columns(len(schema.columns)),
            manifest.explainer.link,
            schema.names,
        )
    return RegisteredModel(
        manifest=manifest,
        digest=digest,
        schema=schema,
        codec=RowCodec(schema),
        native=native,
        explainer=explainer,
        background=background,
        invariants=invariants,
        seen=SeenRanges.of(schema, seen_ranges(orjson.loads(contents["baseline.json"]))),
        sample=orjson.loads(contents["sample.json"]),
    )


def _explainer(
    factory: ExplainerFactory, background: Background, manifest: Manifest, tables: bytes | None
) -> Explainer:
    """From the stored tables, or compiled again where they are absent or outdated."""
    try:
        return factory.build(background, stored_tables=tables)
    except OutdatedTablesError as error:
        log.info("tables_rebuilt", model=manifest.name, version=manifest.version, reason=str(error))
        return factory.build(background)


def _check_identity(
    manifest: Manifest, schema: ModelSchema, native: NativeModel, background: Background
) -> None:
    """Model, schema and background are those the manifest was written for."""
    found = {
        "schema": schema.digest() == manifest.schema_digest,
        "column names": schema.names == native.columns.raw.names == manifest.artifact.names
        and schema.feature_names_digest() == manifest.feature_names_digest,
        "background": background.digest == manifest.background.digest,
        "task": native.task == manifest.task,
        "output space": native.output_space == manifest.explainer.output_space,
    }
    for part, agrees in found.items():
        if not agrees:
            raise DamagedVersionError(
                f"{manifest.name}/{manifest.version}: its {part} is not what its manifest says"
            )


def seen_ranges(
    baseline: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[str, tuple[float, float]]:
    """Smallest and largest number seen at registration, per numeric column."""
    return {
        name: (entry["minimum"], entry["maximum"])
        for name, entry in baseline["columns"].items()
        if "minimum" in entry
    }


def golden_of(
    instances: list[dict[str, Level | None]],
    rows: FloatArray,
    native: NativeModel,
    explainer: Explainer | None,
) -> dict[str, object]:
    """Numbers a loaded version must come back to."""
    served = native.predict(rows)
    golden: dict[str, object] = {
        "instances": instances,
        "outputs": served.outputs.tolist(),
        "scores": served.scores.tolist(),
    }
    if explainer is not None:
        explanation = explainer.explain(rows)
        golden["values"] = explanation.values.tolist()
        golden["base_values"] = explanation.base_values.tolist()
    return golden


def check_golden(model: RegisteredModel, golden: Mapping[str, object]) -> None:
    """Compare with the stored numbers; this also warms every path a request takes.

    Catches what additivity cannot: a swapped background, permuted names, a library whose numbers
    moved. GoldenMismatchError names the array and the gap.
    """
    instances = cast("list[dict[str, Level | None]]", golden["instances"])
    rows = rows_of(model.schema, instances)
    now = golden_of(instances, rows, model.native, model.explainer)
    numbers = GOLDEN_TOLERANCE[model.native.is_float32]
    values = numbers if model.explainer is None else model.explainer.tolerance
    version = f"{model.name}/{model.version}"
    if not instances or golden.keys() != now.keys():
        raise GoldenMismatchError(f"{version}: its golden values are not those of such a model")
    for name in [name for name in now if name != "instances"]:
        gap = _golden_gap(np.asarray(golden[name]), np.asarray(now[name]))
        tolerance = values if name == "values" else numbers
        if not gap <= tolerance:
            raise GoldenMismatchError(
                f"{version}: {name} differ from the golden values by {gap:.2g} "
                f"(allowed {tolerance:g}); the version is not served"
            )


def _golden_gap(expected: FloatArray, found: FloatArray) -> float:
    """Relative to the largest number expected; inf for another shape."""
    if expected.shape != found.shape:
        return np.inf
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(expected - found).max()) / scale
