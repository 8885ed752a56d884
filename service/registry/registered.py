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
    Explanation,
    FloatArray,
    IntArray,
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
from service.privacy import PersonalLevels
from service.registry.building import INLINE_ENGINES, CalledFactory, ExplainerFactory
from service.registry.errors import DamagedVersionError, GoldenMismatchError
from service.registry.inference import rows_of
from service.registry.layout import TABLES, Layout, read_files, sha256_of
from service.registry.manifest import Manifest
from service.registry.personal import personal_levels

GOLDEN_TOLERANCE = {True: 1e-5, False: 1e-9}
"""Largest relative gap to the golden outputs, scores and base values, by float32 or not."""

GOLDEN_CALLED_ROWS = 1
"""Explained rows among the golden ones where each takes thousands of model rows."""


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredModel:
    """Predictor, explainer, row type and digests of one version; never mixed with another's.

    explainer is None where the version is not explained at all, and where only workers explain it
    and this process is none (`Registry.load`); manifest.explainer says which, and how.
    """

    manifest: Manifest
    digest: str
    schema: ModelSchema
    codec: RowCodec
    native: NativeModel
    explainer: Explainer | None
    background: Background
    invariants: Invariants | None
    """What explanations are held to; None without an explainer of its own."""
    seen: SeenRanges
    sample: Mapping[str, Level | None]
    personal_levels: PersonalLevels
    """What is not shown of the schema."""

    largest_value: float | None
    """Of the golden rows: sum over outputs of |value|; None without explanations."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def engine(self) -> Engine | None:
        """What computes explanations; a later release may have a better one than it registered."""
        return self.manifest.explainer.engine if self.explainer is None else self.explainer.engine

    @property
    def runs_inline(self) -> bool:
        """Whether its explanations may be computed before the answer; else in workers only."""
        return self.engine in INLINE_ENGINES

    @property
    def is_exact(self) -> bool | None:
        """False: values are estimates and carry standard errors; None without explanations."""
        explainer = self.manifest.explainer
        return None if explainer.method is None else explainer.exact is not False

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) outputs of many raw rows at once: see `NativeModel.evaluate`."""
        return self.native.evaluate(X)

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


def load_version(
    layout: Layout, name: str, version: int, *, for_worker: bool = False
) -> RegisteredModel:
    """Read, check every digest, restore the explainer and compare with the golden values.

    for_worker: an explainer that calls the model is restored too, and its golden values come back
    to; it may take seconds, and other processes need neither. Raises DamagedVersionError or
    GoldenMismatchError; nothing unchecked is ever returned.
    """
    folder = layout.folder(name, version)
    return load_folder(folder, name, version, for_worker=for_worker)


def load_folder(
    folder: Path, name: str, version: int, *, for_worker: bool = False
) -> RegisteredModel:
    """`load_version` from a folder of any name, such as a draft."""
    manifest_bytes, contents = read_files(folder)
    manifest = Manifest.model_validate_json(manifest_bytes)
    if (manifest.name, manifest.version) != (name, version):
        raise DamagedVersionError(f"{name}/{version} holds {manifest.name}/{manifest.version}")
    try:
        model = _assemble(manifest, sha256_of(manifest_bytes), contents, for_worker=for_worker)
        check_golden(model, orjson.loads(contents["golden.json"]))
    except (ModelLoadError, ExplainerError, SchemaError) as error:
        raise DamagedVersionError(f"{name}/{version}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DamagedVersionError(f"{name}/{version}: its files do not fit: {error!r}") from error
    return model


def _assemble(
    manifest: Manifest, digest: str, contents: Mapping[str, bytes], *, for_worker: bool
) -> RegisteredModel:
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
    explainer, unused = _explainer(
        manifest, schema, native, background, contents.get(TABLES), for_worker=for_worker
    )
    invariants = None
    if explainer is not None:
        invariants = Invariants(
            explainer.tolerance,
            explainer.output_scale,
            unused,
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
        personal_levels=personal_levels(schema, manifest.allowed_columns),
        largest_value=_largest(orjson.loads(contents["golden.json"])),
    )


def _largest(golden: Mapping[str, object]) -> float | None:
    if "values" not in golden:
        return None
    return float(np.abs(np.asarray(golden["values"])).sum(axis=-1).max())


def _explainer(
    manifest: Manifest,
    schema: ModelSchema,
    native: NativeModel,
    background: Background,
    tables: bytes | None,
    *,
    for_worker: bool,
) -> tuple[Explainer | None, IntArray]:
    """The version's explainer, if this process has any use for it, and the columns it never reads.

    Tables come from the file, or are compiled again where they are absent or outdated.
    """
    entry, naming = manifest.explainer, naming_of(manifest, schema)
    unused: IntArray = np.empty(0, dtype=np.int64)
    if entry.method is None:
        return None, unused
    if entry.engine not in INLINE_ENGINES:
        called = CalledFactory.recorded(native, naming, entry)
        return called.build(background) if for_worker else None, unused
    factory = ExplainerFactory.for_model(native, naming)
    unused = factory.unused_columns(len(schema.columns))
    try:
        return factory.build(background, stored_tables=tables), unused
    except OutdatedTablesError as error:
        log.info("tables_rebuilt", model=manifest.name, version=manifest.version, reason=str(error))
        return factory.build(background), unused


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
    """Numbers a loaded version must come back to; few values where each takes long."""
    served = native.predict(rows)
    golden: dict[str, object] = {
        "instances": instances,
        "outputs": served.outputs.tolist(),
        "scores": served.scores.tolist(),
    }
    if explainer is not None:
        few = rows if explainer.engine in INLINE_ENGINES else rows[:GOLDEN_CALLED_ROWS]
        golden |= golden_values(explainer.explain(few, seeds=np.arange(len(few), dtype=np.int64)))
    return golden


def golden_values(explanation: Explanation) -> dict[str, object]:
    """What `golden_of` keeps of an explanation."""
    return {
        "values": explanation.values.tolist(),
        "base_values": explanation.base_values.tolist(),
    }


def check_golden(model: RegisteredModel, golden: Mapping[str, object]) -> None:
    """Compare with the stored numbers; this also warms every path a request takes.

    Catches what additivity cannot: a swapped background, permuted names, a library whose numbers
    moved. GoldenMismatchError names the array and the gap. Where only workers explain, the others
    compare the mean over the background in place of the values.
    """
    instances = cast("list[dict[str, Level | None]]", golden["instances"])
    rows = rows_of(model.schema, instances)
    now = golden_of(instances, rows, model.native, model.explainer)
    if model.explainer is None and model.manifest.explainer.method is not None:
        golden = {name: golden[name] for name in golden if name != "values"}
        base = model.evaluate(model.background.rows).mean(axis=0)
        now["base_values"] = np.tile(base, (GOLDEN_CALLED_ROWS, 1)).tolist()
    numbers = GOLDEN_TOLERANCE[model.native.is_float32]
    values = numbers if model.explainer is None else model.explainer.tolerance
    version, method = f"{model.name}/{model.version}", model.manifest.explainer.method or "none"
    if not instances or golden.keys() != now.keys():
        reason = f"{version}: its golden values are not those of such a model"
        raise GoldenMismatchError(reason, method=method)
    for name in [name for name in now if name != "instances"]:
        # A mean may be near 0, as of a standardised target: its rounding is that of the outputs.
        floor = float(np.abs(np.asarray(golden["outputs"])).max()) if name == "base_values" else 0.0
        gap = _golden_gap(np.asarray(golden[name]), np.asarray(now[name]), floor)
        tolerance = values if name == "values" else numbers
        if not gap <= tolerance:
            raise GoldenMismatchError(
                f"{version}: {name} differ from the golden values by {gap:.2g} "
                f"(allowed {tolerance:g}); the version is not served",
                method=method,
            )


def _golden_gap(expected: FloatArray, found: FloatArray, floor: float = 0.0) -> float:
    """Relative to the largest number expected, or the floor; inf for another shape."""
    if expected.shape != found.shape:
        return np.inf
    scale = max(float(np.abs(expected).max()), floor) or 1.0
    return float(np.abs(expected - found).max()) / scale
