"""What the gate lets by, and what it blocks, on registered versions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import explaind
from gated_versions import Gated, gated_versions
from tables import instances_of

from service.errors import InvalidInputError, UsageError
from service.gate import (
    Bounds,
    Depth,
    Finding,
    Gate,
    GateReport,
    InstanceRows,
    named_version,
    rows_of_file,
)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Gated:
    return gated_versions(tmp_path_factory.mktemp("gated"))


def compare(gated: Gated, new: str, *, labels: bool = False, **bounds: Any) -> GateReport:
    old, candidate = (
        named_version(gated.registry, f"loans:{gated.versions[name]}") for name in ("first", new)
    )
    rows = rows_of_file(gated.rows, most=600, seed=0, labels="outcome" if labels else None)
    gate = Gate(bounds=Bounds().changed(bounds, source="test"), depth=Depth(explained_rows=200))
    return gate.compare(old, candidate, rows)


def by_name(report: GateReport) -> Mapping[str, Finding]:
    assert len({finding.check for finding in report.findings}) == len(report.findings)
    return {finding.check: finding for finding in report.findings}


def blocked(report: GateReport) -> set[str]:
    return {finding.check for finding in report.blocks}


@pytest.mark.parametrize("new", ["first", "seed", "bootstrap"])
def test_a_model_trained_again_passes_every_check(gated: Gated, new: str) -> None:
    report = compare(gated, new)
    assert blocked(report) == set()
    assert report.rows == 600
    assert report.explained == 200
    assert {finding.verdict for finding in report.findings} == {"pass"}


def test_the_same_version_differs_in_nothing(gated: Gated) -> None:
    found = by_name(compare(gated, "first"))
    for name in ("label_flips", "score_gap", "score_psi", "slice_gap", "swapped_columns"):
        assert found[name].value == 0, name
    for name in ("spearman", "ndcg", "sign_agreement", "column_correlation"):
        assert found[name].value == pytest.approx(1), name
    assert found["share_shift"].value == found["stability_drop"].value == 0


def test_swapped_columns_are_blocked_and_named(gated: Gated) -> None:
    found = by_name(compare(gated, "swapped"))
    assert found["swapped_columns"].verdict == "block"
    assert found["swapped_columns"].at == "income, savings"


def test_a_leak_is_blocked_by_the_share_of_its_column(gated: Gated) -> None:
    found = by_name(compare(gated, "leak"))
    assert found["share_shift"].verdict == "block"
    assert found["share_shift"].at == "tenure"


def test_another_background_is_blocked_and_its_effect_is_measured(gated: Gated) -> None:
    assert "background" in blocked(compare(gated, "background"))
    allowed = by_name(compare(gated, "background", same_background=False, background_effect=1.0))
    assert allowed["background"].verdict == "note"
    assert 0 < (allowed["background_effect"].value or 0) < 1
    told = compare(gated, "background", same_background=False, background_effect=0.0)
    assert blocked(told) == {"background_effect"}
    assert "background_effect" not in by_name(compare(gated, "seed"))


def test_a_column_that_callers_do_not_send_blocks_without_any_row_compared(gated: Gated) -> None:
    report = compare(gated, "added")
    assert {"schema", "refused_rows"} <= blocked(report)
    found = by_name(report)
    assert "'score' is new and required" in found["schema"].detail
    assert "score" in found["refused_rows"].detail
    assert found["comparison"].verdict == "skip"
    assert report.rows == 0


def test_a_new_column_that_explains_most_is_a_leak_even_where_new_columns_are_allowed(
    gated: Gated, tmp_path: Path
) -> None:
    wider = gated.X.assign(score=np.where(gated.y == "good", 1.0, -1.0))
    wider.to_parquet(tmp_path / "wider.parquet")
    registry, versions = gated.registry, gated.versions
    old, new = (named_version(registry, f"loans:{versions[name]}") for name in ("first", "added"))
    rows = rows_of_file(tmp_path / "wider.parquet", most=300, seed=0, labels=None)
    bounds = Bounds(same_schema=False, same_background=False)
    report = Gate(bounds=bounds, depth=Depth(explained_rows=100)).compare(old, new, rows)
    found = by_name(report)
    assert found["schema"].verdict == "note"
    assert found["refused_rows"].verdict == "pass"
    assert found["new_column_share"].verdict == "block"
    assert found["new_column_share"].at == "score"


def test_labels_tell_a_worse_version_from_an_equal_one(gated: Gated) -> None:
    assert blocked(compare(gated, "seed", labels=True)) == set()
    assert "auc_drop" in blocked(compare(gated, "swapped", labels=True))
    gain = by_name(compare(gated, "seed", labels=True, auc_gain=-1.0))["auc_gain"]
    assert gain.verdict == "block"


def test_rows_that_only_the_new_version_refuses_block(gated: Gated) -> None:
    """A region the old version reads and the new one does not know."""
    from dataclasses import replace

    from schemas import ModelSchema, RowCodec

    old = named_version(gated.registry, "loans")
    columns = [
        replace(c, levels=("north", "south"), unknown="refuse") if c.name == "region" else c
        for c in old.schema.columns
    ]
    schema = ModelSchema(tuple(columns))
    new = replace(old, schema=schema, codec=RowCodec(schema))
    rows = InstanceRows("here", instances_of(gated.X.iloc[:400]))
    report = Gate(bounds=Bounds(), depth=Depth(explained_rows=60)).compare(old, new, rows)
    found = by_name(report)
    share = float((gated.X["region"].iloc[:400] == "west").mean())
    assert found["refused_rows"].value == pytest.approx(share)
    assert "region" in found["refused_rows"].detail
    assert "no longer takes 1 levels" in found["schema"].detail
    assert blocked(report) == {"schema", "refused_rows"}


def test_too_few_rows_are_no_comparison(gated: Gated) -> None:
    model = named_version(gated.registry, "loans")
    rows = InstanceRows("here", instances_of(gated.X.iloc[:99]))
    with pytest.raises(InvalidInputError, match="99 rows of here"):
        Gate(bounds=Bounds(), depth=Depth()).compare(model, model, rows)


def test_attributions_of_too_few_rows_block(gated: Gated) -> None:
    model = named_version(gated.registry, "loans")
    rows = rows_of_file(gated.rows, most=200, seed=0, labels=None)
    for depth, count in ((Depth(explained_rows=49), 49), (Depth(explained_rows=50), 50)):
        report = Gate(bounds=Bounds(), depth=depth).compare(model, model, rows)
        assert report.explained == count
        assert blocked(report) == (set() if count == 50 else {"explained_rows"})
    few = Bounds().changed({"explained_rows_min": 1}, source="test")
    report = Gate(bounds=few, depth=Depth(explained_rows=2)).compare(model, model, rows)
    assert blocked(report) == set()


def test_lines_of_json_are_read_like_the_table(gated: Gated, tmp_path: Path) -> None:
    instances = instances_of(gated.X.assign(outcome=gated.y))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, instances)))
    model = named_version(gated.registry, "loans@serving")
    lines = rows_of_file(tmp_path / "rows.jsonl", most=150, seed=3, labels="outcome")
    table = rows_of_file(gated.rows, most=150, seed=3, labels="outcome")
    ours, theirs = (rows.read_by(model) for rows in (lines, table))
    assert np.array_equal(ours.X, theirs.X)
    labels = lines.labels(ours.numbers), table.labels(theirs.numbers)
    assert list(labels[0] or ()) == list(labels[1] or ()) != []


def test_a_table_with_a_row_that_is_none_still_gives_every_label_to_its_row(
    gated: Gated, tmp_path: Path
) -> None:
    X = gated.X.assign(outcome=gated.y).astype(object)
    X.loc[3, "income"] = "no number"
    X.to_csv(tmp_path / "odd.csv", index=False)
    model = named_version(gated.registry, "loans")
    rows = rows_of_file(tmp_path / "odd.csv", most=50_000, seed=0, labels="outcome")
    read = rows.read_by(model)
    assert 4 in read.refused
    assert len(read.numbers) == len(X) - 1
    expected = [gated.y.iloc[number - 1] for number in read.numbers]
    assert list(rows.labels(read.numbers) or ()) == expected


@pytest.mark.parametrize("text", ["loans:x", "loans:", "loans@best", "loans@previous"])
def test_what_names_no_version_is_a_usage_error(gated: Gated, text: str) -> None:
    with pytest.raises(UsageError):
        named_version(gated.registry, text)


def test_missing_or_strange_labels_are_refused(gated: Gated, tmp_path: Path) -> None:
    model = named_version(gated.registry, "loans")
    for outcome, reason in ((None, "missing"), ("perhaps", "no classes of the model")):
        made = gated.X.assign(outcome=gated.y)
        made.loc[5, "outcome"] = outcome
        made.to_csv(tmp_path / "rows.csv", index=False)
        rows = rows_of_file(tmp_path / "rows.csv", most=5000, seed=0, labels="outcome")
        with pytest.raises(InvalidInputError, match=reason):
            Gate(bounds=Bounds(), depth=Depth(explained_rows=20)).compare(model, model, rows)
    with pytest.raises(InvalidInputError, match="no column 'result'"):
        rows_of_file(gated.rows, most=10, seed=0, labels="result")


def test_the_command_says_what_it_found_and_ends_with_the_verdict(gated: Gated) -> None:
    place = ("--data-dir", str(gated.folder), "--rows", str(gated.rows), "--explained", "100")
    old, bad = "loans@serving", f"loans:{gated.versions['swapped']}"
    good = explaind("gate", old, f"loans:{gated.versions['seed']}", *place)
    assert good.returncode == 0, good.stderr
    assert "passes: 900 rows compared, 100 explained" in good.stdout
    done = explaind("gate", old, bad, *place, "--labels", "outcome", "--json")
    assert done.returncode == 1, done.stderr
    assert "is blocked: " in done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "block"
    (swap,) = (each for each in report["checks"] if each["check"] == "swapped_columns")
    assert (swap["verdict"], swap["at"]) == ("block", "income, savings")
    strict = explaind("gate", old, old, *place, "--bound", "spearman=1.1")
    assert strict.returncode == 1
    assert "loans:1 is blocked: spearman" in strict.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("loans@serving", "loans:99"), "no version 99"),
        (("none", "loans:1"), "no version 'none'"),
        (("loans:1", "loans:2", "--labels", "outcome"), "--labels goes with --rows"),
        (("loans:1", "loans:2", "--bound", "speed=1"), "no bound 'speed'"),
        (("loans:1", "loans:2", "--rows", "absent.csv"), "absent.csv"),
        (("loans:1", "loans:2"), "a comparison takes 100"),
    ],
    ids=["version", "name", "labels", "bound", "file", "no rows"],
)
def test_what_cannot_be_compared_ends_with_2(
    gated: Gated, arguments: tuple[str, ...], reason: str
) -> None:
    done = explaind("gate", *arguments, "--data-dir", str(gated.folder))
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_slices_are_found_where_the_versions_differ(gated: Gated) -> None:
    """A version that is off in one region only, by its share of all rows too little to notice."""
    from dataclasses import replace

    from service.gate.predictions import prediction_findings
    from service.gate.sides import Pair, Side

    model = named_version(gated.registry, "loans")
    X = rows_of_file(gated.rows, most=600, seed=0, labels=None).read_by(model).X
    old = Side.of(model, X, explained=0, seed=0)
    region = model.schema.names.index("region")
    codes = pd.unique(X[:, region])
    moved = old.scores.copy()
    chosen = X[:, region] == codes[0]
    moved[chosen, 1] -= 0.15
    moved[chosen, 0] += 0.15
    found = {each.check: each for each in prediction_findings(_pair(old, moved), Bounds())}
    assert found["slice_gap"].verdict == "block"
    assert found["slice_gap"].at.startswith("region = ")
    assert found["score_gap"].verdict == "pass"
    few = replace(old, X=X[:20], scores=old.scores[:20], outputs=old.outputs[:20])
    found = {each.check: each for each in prediction_findings(Pair(few, few), Bounds())}
    assert found["slice_gap"].verdict == "skip"


def _pair(old: Any, scores: Any) -> Any:
    from dataclasses import replace

    from service.gate.sides import Pair

    return Pair(old, replace(old, scores=scores))
