"""The files of a new version."""

from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from service.registry import proof
from service.registry.baseline import baseline_of
from service.registry.building import TOLERANCE
from service.registry.inference import instances_of, synthetic_sample
from service.registry.layout import TABLES, sha256_of
from service.registry.libraries import installed_libraries, service_version
from service.registry.manifest import (
    ArtifactEntry,
    BackgroundEntry,
    CostEntry,
    ExplainerEntry,
    FileEntry,
    Manifest,
    ProofEntry,
)
from service.registry.personal import personal_levels
from service.registry.registered import GOLDEN_CALLED_ROWS, golden_of, golden_values
from service.registry.work import Work


def version_files(work: Work) -> dict[str, bytes]:
    """Everything but the card and the manifest, by file name."""
    native, schema = work.source.native, work.schema
    golden_rows = proof.spread_rows(work.rows, work.outputs, proof.GOLDEN_ROWS)
    golden = golden_of(instances_of(schema, golden_rows), golden_rows, native, work.explainer)
    if work.explained is not None:
        golden |= golden_values(work.explained.of(golden_rows[:GOLDEN_CALLED_ROWS]))
    tables = work.explainer.stored_tables() if work.explainer else None
    return {
        f"model.{work.source.artifact.format}": work.source.artifact.data,
        "schema.json": orjson.dumps(schema.to_json(), option=orjson.OPT_INDENT_2),
        "background.json": work.background_bytes,
        "golden.json": orjson.dumps(golden),
        "baseline.json": orjson.dumps(baseline_of(work)),
        "sample.json": orjson.dumps(
            synthetic_sample(schema, work.rows, personal_levels(schema, work.allowed))
        ),
        **({} if tables is None else {TABLES: tables}),
    }


def file_entries(contents: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Digest and size of each file."""
    return {
        name: FileEntry(sha256=sha256_of(data), size=len(data)) for name, data in contents.items()
    }


def manifest_of(
    name: str, number: int, work: Work, cost: CostEntry, contents: Mapping[str, bytes]
) -> Manifest:
    """Everything that identifies the version."""
    native, schema = work.source.native, work.schema
    artifact = _artifact_entry(work)
    return Manifest(
        name=name,
        version=number,
        created_at=datetime.now(UTC),
        task=native.task,
        classes=work.classes,
        artifact=artifact,
        explainer=_explainer_entry(work),
        background=BackgroundEntry(
            digest=work.background.digest,
            rows=len(work.background.rows),
            seed=work.options.seed,
            drawn_from_rows=len(work.rows),
        ),
        schema_digest=schema.digest(),
        feature_names_digest=schema.feature_names_digest(),
        category_map_digest=_digest(artifact.categories),
        libraries=installed_libraries(),
        service_version=service_version(),
        cost=cost,
        proof=ProofEntry(
            data_rows=len(work.rows),
            edge_rows=proof.EDGE_ROWS,
            parse_gap=work.proven.get("parse_gap"),
            engines_gap=work.proven.get("engines_gap"),
            oracle_gap=work.proven.get("oracle_gap"),
            oracle_z=work.proven.get("oracle_z"),
            oracle_rows=int(work.proven.get("oracle_rows") or 0),
        ),
        fit=work.fit,
        warnings=tuple(work.warnings),
        allowed_columns=work.allowed,
        files=file_entries(contents),
    )


def _artifact_entry(work: Work) -> ArtifactEntry:
    native, artifact = work.source.native, work.source.artifact
    raw = native.columns.raw
    return ArtifactEntry(
        file=f"model.{artifact.format}",
        format=artifact.format,
        library=native.library,
        digest=sha256_of(artifact.data),
        trees_used=native.trees_used,
        source=artifact.source,
        names=raw.names,
        categories={
            column: levels
            for column, levels in zip(raw.names, raw.levels, strict=True)
            if levels is not None
        },
    )


def _explainer_entry(work: Work) -> ExplainerEntry:
    native, explained = work.source.native, work.explained
    # Of an exact explainer, or of what one that calls the model has given.
    chosen = work.explainer if explained is None else explained.explanation
    calls = work.called.calls if work.called else None
    config = {
        "method": chosen.method if chosen else None,
        "output_space": native.output_space,
        "background": work.background.digest,
        "trees_used": native.trees_used,
    }
    return ExplainerEntry(
        method=chosen.method if chosen else None,
        engine=chosen.engine if chosen else None,
        exact=chosen.exact if chosen else None,
        reason=work.reason,
        calls=calls,
        output_space=native.output_space,
        link=native.link,
        output_names=work.naming.outputs,
        tolerance=work.explainer.tolerance if work.explainer else TOLERANCE[native.is_float32],
        config_digest=_digest(config | ({"calls": calls.model_dump()} if calls else {})),
    )


def _digest(document: object) -> str:
    return sha256_of(orjson.dumps(document))
