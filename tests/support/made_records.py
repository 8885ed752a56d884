"""Records made up for narratives: any names, any numbers, every status."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.0, 1e-12, 3.0, -2.5e17])
NAMES = st.text(st.sampled_from('ab 1290.%+-e"\\/~é\n'), min_size=1, max_size=8)
CELLS = NUMBERS | NAMES | st.booleans() | st.none() | st.integers(-(10**9), 10**9)
CAVEAT = "Attributions describe this model's behaviour; they are not causes."


def explanation(
    names: list[str], output_names: list[str], rows: list[Any], **changes: Any
) -> Document:
    """A complete one; rows: (N, F, C) values."""
    sums = [[sum(cells) for cells in zip(*row, strict=True)] for row in rows]
    exact: Document = {
        "status": "complete",
        "reason": None,
        "lane": "inline",
        "method": "tree_interventional",
        "engine": "table",
        "exact": True,
        "output_space": "log_odds" if len(output_names) == 1 else "margin",
        "link": "logit" if len(output_names) == 1 else "softmax",
        "output_names": output_names,
        "feature_names": names,
        "values": rows,
        "base_values": [[0.5] * len(output_names) for _ in rows],
        "outputs": [[total + 0.5 for total in each] for each in sums],
        "standard_errors": None,
        "additivity_error": [1.5e-9] * len(rows),
        "top": [[] for _ in rows],
        "background_digest": "sha256:12ab",
        "seed": None,
        "model_evaluations": 0,
        "duration_seconds": 0.00012,
        "caveat": CAVEAT,
        "links": {"self": "/explanations/request-1"},
    }
    return {**exact, **changes}


def record(instances: list[Any], predictions: list[Any], explained: Document | None) -> Document:
    return {
        "request_id": "request-1",
        "received_at": "2026-11-22T04:30:00Z",
        "model": {"name": "loans 2", "version": 3, "digest": "sha256:34cd"},
        "instances": instances,
        "predictions": predictions,
        "explanation": explained,
        "provenance": {
            "model_digest": "sha256:34cd",
            "artifact_digest": "sha256:56",
            "schema_digest": "sha256:78",
            "background_digest": "sha256:12ab",
            "explainer_config_digest": "sha256:90",
            "library_versions": {"numpy": "2.4.6"},
            "service_version": "0.1.0",
            "worker": None,
            "principal": "key-7",
        },
    }


def binary(**changes: Any) -> Document:
    """One applicant, declined: three columns, of which one is idle and one was not given."""
    values = [[[1.25], [-0.5], [0.0]]]
    explained = explanation(["status", "age", "x 3"], ["bad"], values, **changes)
    prediction = {
        "label": "bad",
        "probabilities": {"good": 0.28906, "bad": 0.71094},
        "decision": "decline",
    }
    made = record([{"status": "0DM", "age": 22}], [prediction], explained)
    rule = {"class": "bad", "at_least": 0.4, "name": "decline", "otherwise": "accept"}
    return {**made, "decision_rule": rule, "warnings": []}


@st.composite
def records(draw: Callable[[Any], Any]) -> Document:
    """Binary, multiclass and regression records of a few instances, some of them erased."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    classes = draw(st.just([]) | st.lists(NAMES, min_size=2, max_size=4, unique=True))
    outputs = ["value"] if not classes else classes[1:] if len(classes) == 2 else classes
    n_rows = draw(st.integers(1, 3))
    row = st.lists(
        st.lists(NUMBERS, min_size=len(outputs), max_size=len(outputs)),
        min_size=len(names),
        max_size=len(names),
    )
    rows = [draw(row) for _ in range(n_rows)]
    errors = draw(st.none() | st.just([[[0.25] * len(outputs)] * len(names)] * n_rows))
    estimated = {"standard_errors": errors, "exact": False, "seed": [2**60 + 1] * n_rows}
    explained = explanation(names, outputs, rows, **(estimated if errors else {}))
    cells = [{name: draw(CELLS) for name in names} for _ in range(n_rows)]
    made = record(cells, [_prediction(draw, classes) for _ in range(n_rows)], explained)
    if draw(st.booleans()):
        made["decision_rule"] = {
            "class": classes[0] if classes else None,
            "at_least": draw(st.floats(0, 1)),
            "name": "yes 1",
            "otherwise": None,
        }
        for prediction in made["predictions"]:
            prediction["decision"] = draw(st.sampled_from(["yes 1", None]))
    return _with_erased(draw, made)


def _prediction(draw: Callable[[Any], Any], classes: list[str]) -> Document:
    if not classes:
        return {"value": draw(NUMBERS)}
    shares = [draw(st.floats(0, 1)) for _ in classes]
    return {
        "label": classes[shares.index(max(shares))],
        "probabilities": dict(zip(classes, shares, strict=True)),
    }


def _with_erased(draw: Callable[[Any], Any], made: Document) -> Document:
    if len(made["predictions"]) > 1 and draw(st.booleans()):
        erased = draw(st.integers(0, len(made["predictions"]) - 1))
        made["erased_in_part"] = True
        for rows in (made["predictions"], made["instances"]):
            rows[erased] = None
        for name in ("values", "base_values", "outputs", "standard_errors", "seed"):
            if made["explanation"][name] is not None:
                made["explanation"][name] = [*made["explanation"][name]]
                made["explanation"][name][erased] = None
    return made
