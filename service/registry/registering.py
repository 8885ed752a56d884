"""Making a version: infer, prove, measure, write. Nothing is written before all of it passed."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import orjson

from explainers.base import (
    Background,
    Explainer,
    ExplainerError,
    FloatArray,
    Naming,
    UnsupportedModelError,
)
from schemas import ModelSchema
from service.errors import InvalidInputError
from service.models.base import NativeModel, Served, StoppedEarly
from service.models.probing import are_shares
from service.registry import proof
from service.registry.assumptions import check_assumed
from service.registry.building import TOLERANCE, ExplainerFactory
from service.registry.called import choose_called
from service.registry.fit import judge
from service.registry.frozen_card import frozen_card
from service.registry.inference import (
    admitted_rows,
    check_missing,
    check_schema,
    draw_rows,
    infer_schema,
    instances_of,
    with_sources,
)
from service.registry.layout import MANIFEST, Layout, sha256_of, write_files
from service.registry.manifest import CostEntry, FitEntry
from service.registry.naming import output_names
from service.registry.personal import check_personal
from service.registry.recording import file_entries, manifest_of, version_files
from service.registry.registered import RegisteredModel, load_folder
from service.registry.tables import encode_frame, unknown_shares
from service.registry.work import Options, Report, Source, Work

if TYPE_CHECKING:
    import pandas as pd

SMALLEST_TABLE = 10
MOST_UNPROVEN_ROWS = 1000
FEWEST_CALLS, MOST_CALLS = 3, 15
CALIBRATION_SECONDS = 0.5
"""Fewer calls are timed where they take longer."""


def register_version(
    layout: Layout, name: str, source: Source, options: Options, say: Callable[[str], None]
) -> tuple[RegisteredModel, Report]:
    """Write the next version of a name and load it as a server would, before it shows.

    Raises InvalidInputError with what to do for anything that could be read wrongly: unknown
    classes or category maps, data that do not fit the model.
    """
    work = _prepare(source, options, say)
    proof.check_repeats(source.native, work.rows, work.outputs)
    _choose_explainer(work)
    cost = _calibrate(work)
    strongest = _strongest(work)
    with layout.draft(name) as draft, layout.lock():
        number = max(layout.versions(name), default=0) + 1
        contents = version_files(work)
        manifest = manifest_of(name, number, work, cost, contents)
        report = Report(
            name=name,
            version=number,
            quality=work.quality,
            ignored_columns=_ignored(source),
            strongest=strongest,
            warnings=manifest.warnings,
        )
        baseline = orjson.loads(contents["baseline.json"])
        contents["card.md"] = frozen_card(manifest, report, work.schema, baseline).encode()
        manifest = manifest.model_copy(update={"files": file_entries(contents)})
        contents[MANIFEST] = orjson.dumps(
            manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2
        )
        write_files(draft, contents)
        model = load_folder(draft, name, number, for_worker=True)
        layout.publish(draft, number)
    return model, report


def _prepare(source: Source, options: Options, say: Callable[[str], None]) -> Work:
    native = source.native
    if options.background_rows < 1 or options.seed < 0:
        raise InvalidInputError("the background has at least one row, its seed is not negative")
    check_assumed(source.frame, native.columns)
    rows = _rows(source)
    if len(rows) < SMALLEST_TABLE:
        raise InvalidInputError(f"{len(rows)} rows are too few to register with")
    schema = _schema(source, options, rows)
    allowed = check_personal(schema, source.frame, options.allow_columns)
    warnings = _reading(source, rows)
    served, labels, rows, doubts = _served(source, rows, options, say)
    judged = judge(source, options, served.scores, labels)
    warnings += doubts + judged.warnings
    is_admitted = admitted_rows(schema, rows)
    usable = rows[is_admitted]
    if not len(usable):
        raise InvalidInputError("the schema admits no row of the data")
    if len(usable) < len(rows):
        warnings.append(f"the schema refuses {len(rows) - len(usable)} rows of the data")
    drawn = usable[draw_rows(len(usable), options.background_rows, options.seed)]
    background_bytes = orjson.dumps(instances_of(schema, drawn))
    return Work(
        source=source,
        options=options,
        say=say,
        schema=schema,
        rows=usable,
        outputs=served.outputs[is_admitted],
        scores=served.scores[is_admitted],
        classes=judged.classes,
        quality=judged.quality,
        fit=FitEntry(rows=len(labels), measures=judged.measures),
        background=Background(drawn, sha256_of(background_bytes)),
        background_bytes=background_bytes,
        naming=Naming(schema.names, output_names(native, judged.classes), native.output_space),
        warnings=warnings,
        allowed=allowed,
    )


def _rows(source: Source) -> FloatArray:
    """The table in the model's coding, (N, F)."""
    columns = source.native.columns
    unknown = dict(zip(columns.raw.names, columns.unknown, strict=True))
    return encode_frame(source.frame, columns.raw, unknown=unknown)


def _schema(source: Source, options: Options, rows: FloatArray) -> ModelSchema:
    """A person's or the inferred one; it fits the model, and the model the data."""
    columns = source.native.columns
    schema = options.schema or infer_schema(columns, rows, source.frame)
    schema = with_sources(schema, options.sources)
    check_schema(schema, columns)
    check_missing(columns, rows)
    return schema


def _reading(source: Source, rows: FloatArray) -> list[str]:
    """What a person should know of how model and data were read."""
    native = source.native
    columns = native.columns
    warnings = [
        f"column {name!r}: {share:.1%} of the cells hold levels the model does not know; they "
        "were taken as missing or as no known level"
        for name, share in unknown_shares(source.frame, columns.raw, rows).items()
    ]
    if columns.names_are_given:
        order = ", ".join(columns.raw.names)
        warnings.append(f"the model stores no column names; the data's order was taken: {order}")
    if isinstance(native, StoppedEarly) and native.trees_stored != native.trees_used:
        trees = f"{native.trees_used} of {native.trees_stored} trees"
        warnings.append(f"serves {trees} (best_iteration)")
    return warnings


def _served(
    source: Source, rows: FloatArray, options: Options, say: Callable[[str], None]
) -> tuple[Served, "pd.Series", FloatArray, list[str]]:
    """What the model serves, the labels and the rows it was asked for, and warnings."""
    native, labels, warnings = source.native, source.labels, []
    if len(rows) > MOST_UNPROVEN_ROWS and not _is_explainable(native):
        # Without an exact form the library predicts row by row, minutes for a large table.
        chosen = draw_rows(len(rows), MOST_UNPROVEN_ROWS, options.seed)
        warnings.append(f"only {len(chosen)} of the {len(rows)} rows were looked at")
        rows, labels = rows[chosen], labels.iloc[chosen]
    say(f"predicting {len(rows)} rows")
    try:
        served = native.predict(rows)
    except ValueError as error:
        raise InvalidInputError(f"the model cannot predict the data: {error}") from error
    if not np.all(np.isfinite(served.outputs)) or not np.all(np.isfinite(served.scores)):
        raise InvalidInputError("the model's predictions on the data are not all finite")
    if native.task != "regression":
        _check_probabilities(served.scores)
    return served, labels, rows, warnings


def _check_probabilities(scores: FloatArray) -> None:
    strays = np.flatnonzero(~are_shares(scores))
    if len(strays):
        first = ", ".join(f"{score:.4g}" for score in scores[strays[0]])
        raise InvalidInputError(
            f"the model's scores are no class probabilities in {len(strays)} of {len(scores)} rows "
            f"of the data, such as {first}: those of a row are not negative and sum to one. Export "
            "the model with its softmax; a PyTorch program that gives margins or logarithms says "
            "so by `link` in its explaind.json. A sigmoid per class, for several labels at once, "
            "is not supported: register a model per label"
        )


def _is_explainable(native: NativeModel) -> bool:
    try:
        native.form()
    except UnsupportedModelError:
        return False
    return True


def _choose_explainer(work: Work) -> None:
    """The exact explainer if the model has one that proves itself, else one that calls the model
    and does; else a reason.
    """
    native = work.source.native
    try:
        work.factory = ExplainerFactory.for_model(native, work.naming)
        work.say("compiling the explainer")
        work.explainer = work.factory.build(work.background)
        _prove(work)
    except UnsupportedModelError as error:
        if work.factory is not None:
            work.warnings.append(f"its exact explainer is not used: {error}")
        work.factory = work.explainer = None
        work.reason = str(error)
    if work.explainer is None:
        _choose_called(work)


def _choose_called(work: Work) -> None:
    try:
        choose_called(work)
    except (ExplainerError, ValueError) as error:
        work.called = work.explained = None
        work.reason = f"{work.reason}; and by calling the model: {error}"
        work.warnings.append(f"no explainer: {work.reason}; explain=true answers `skipped`")


def _prove(work: Work) -> None:
    """Parse, base values and oracle; UnsupportedModelError when one of them disagrees."""
    native, explainer, factory = work.source.native, work.explainer, work.factory
    assert explainer is not None
    assert factory is not None
    work.say(f"proving predictions on {len(work.rows)} given and {proof.EDGE_ROWS} edge rows")
    hard = proof.hard_rows(factory, work.schema, work.rows)
    proof.check_derivation(factory.form.derivation, np.vstack([work.rows, hard]))
    outputs = np.vstack([work.outputs, native.predict(hard).outputs])
    gap = proof.relative_gap(explainer.outputs(np.vstack([work.rows, hard])), outputs)
    if gap > proof.PARSE_TOLERANCE[native.is_float32]:
        raise UnsupportedModelError(
            f"our reading of the model is {gap:.2g} off the library's predictions"
        )
    base_gap = proof.base_value_gap(explainer, native, work.background)
    if base_gap > TOLERANCE[native.is_float32]:
        raise UnsupportedModelError(f"base values are {base_gap:.2g} off the library's mean")
    _prove_values(work, factory, explainer, gap)


def _prove_values(work: Work, factory: ExplainerFactory, explainer: Explainer, gap: float) -> None:
    """Tables against the walk, and the walk against brute force through the real model."""
    native = work.source.native
    golden = proof.spread_rows(work.rows, work.outputs, proof.GOLDEN_ROWS)
    engines_gap = proof.engines_gap(factory, explainer, work.background, golden)
    if engines_gap is not None and not engines_gap <= proof.ENGINES_TOLERANCE:
        raise UnsupportedModelError(f"tables and walk are {engines_gap:.2g} apart")
    oracle = proof.run_oracle(
        factory,
        native,
        work.background,
        proof.spread_rows(work.rows, work.outputs, proof.ORACLE_ROWS),
        lambda done, total: work.say(f"comparing with brute force: row {done} of {total}"),
    )
    if oracle.gap > proof.ORACLE_TOLERANCE:
        raise UnsupportedModelError(f"values are {oracle.gap:.2g} off brute force")
    work.proven = {
        "parse_gap": gap,
        "engines_gap": engines_gap,
        "oracle_gap": oracle.gap,
        "oracle_rows": oracle.rows,
    }


def _calibrate(work: Work) -> CostEntry:
    """Seconds a row on this machine: the median of repeated calls."""
    native, explainer = work.source.native, work.explainer
    one, many = work.rows[:1], np.resize(work.rows, (64, work.rows.shape[1]))
    predict = _median_seconds(lambda: native.predict(one))
    predict_many = _median_seconds(lambda: native.predict(many)) / len(many)
    if work.explained is not None:
        return work.explained.cost(predict_row=predict, predict_row_in_batch=predict_many)
    if explainer is None:
        return CostEntry(
            predict_row=predict,
            predict_row_in_batch=predict_many,
            explain_row=0.0,
            explain_row_in_batch=0.0,
        )
    return CostEntry(
        predict_row=predict,
        predict_row_in_batch=predict_many,
        explain_row=_median_seconds(lambda: explainer.explain(one)),
        explain_row_in_batch=_median_seconds(lambda: explainer.explain(many)) / len(many),
    )


def _median_seconds(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    while len(times) < FEWEST_CALLS or (
        len(times) < MOST_CALLS and sum(times) < CALIBRATION_SECONDS
    ):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _strongest(work: Work) -> tuple[tuple[str, float], ...]:
    """Columns by their share of all |value| over the background, or the rows of the proof."""
    if work.explained is not None:
        values = work.explained.explanation.values
    elif work.explainer is not None:
        values = work.explainer.explain(work.background.rows).values
    else:
        return ()
    weight = np.abs(values).sum(axis=(0, 2))
    shares = weight / (weight.sum() or 1.0)
    order = np.argsort(-shares, kind="stable")[:10]
    return tuple((work.naming.features[i], float(shares[i])) for i in order)


def _ignored(source: Source) -> tuple[str, ...]:
    return tuple(
        str(name) for name in source.frame.columns if name not in source.native.columns.raw.names
    )
