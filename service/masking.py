"""What is left of an answer or a record for a caller who may not see some of its columns.

Pure functions from the bytes that are kept to the bytes that leave. The contract's keys stay, with
null for what is withheld; only what is listed here is let through, so that what a later release
adds is withheld until somebody thought about it.
"""

from collections.abc import Collection, Mapping, Sequence

import orjson

Document = Mapping[str, object]
Entry = Mapping[str, object]
Visible = Sequence[Sequence[Entry] | None]
"""Per instance, the visible columns' ranks and signs: see `service.visible`. None for one that has
been erased.
"""

ANSWER_KEYS = frozenset({"schema_version", "request_id", "model"})
RECORD_KEYS = frozenset({"request_id", "received_at", "parent_request_id", "model"})
EXPLANATION_KEYS = frozenset(
    {
        "status",
        "lane",
        "method",
        "engine",
        "exact",
        "output_space",
        "link",
        "output_names",
        "feature_names",
        "background_digest",
        "caveat",
        "links",
    }
)
PROVENANCE_KEYS = frozenset(
    {
        "model_digest",
        "artifact_digest",
        "schema_digest",
        "background_digest",
        "explainer_config_digest",
        "library_versions",
        "service_version",
        "lane",
        "worker",
        "received_at",
        "principal",
    }
)
WITHHELD = "withheld: it may tell of a column this role may not see"
NO_REASONS: Entry = {
    "decision": None,
    "status": "withheld",
    "reason": WITHHELD,
    "items": [],
    "cohort_digest": None,
}
"""Of every instance alike: that one has reasons says what was decided of it, which codes it has and
in which order depends on what the masked columns hold.
"""

REASONED = frozenset({"failed", "skipped"})


def masked_answer(body: bytes, hidden: Collection[str] | None, visible: Visible | None) -> bytes:
    """The body of POST /predict. hidden: the columns; None for all, whatever they are called."""
    answer = orjson.loads(body)
    masked = _kept(answer, ANSWER_KEYS)
    masked["predictions"] = [_prediction(prediction) for prediction in answer["predictions"]]
    masked["warnings"] = [
        warning
        for warning in answer["warnings"] or ()  # null: erased in part
        if hidden is not None and _column(warning["pointer"]) not in hidden
    ]
    masked["explanation"] = _explanation(answer["explanation"], visible)
    return orjson.dumps(masked)


def masked_record(document: bytes, hidden: Collection[str], visible: Visible | None) -> bytes:
    """The body of GET /explanations/{request_id}."""
    record = orjson.loads(document)
    masked = _kept(record, RECORD_KEYS)
    masked["instances"] = [
        instance and {name: None if name in hidden else cell for name, cell in instance.items()}
        for instance in record["instances"]
    ]
    masked["predictions"] = [_prediction(prediction) for prediction in record["predictions"]]
    masked["explanation"] = _explanation(record["explanation"], visible)
    masked["provenance"] = _kept(record["provenance"], PROVENANCE_KEYS)
    return orjson.dumps(masked)


def masked_explanation(explanation: bytes, visible: Visible | None) -> bytes:
    """An explanation by itself, as events carry it; `null` stays."""
    return orjson.dumps(_explanation(orjson.loads(explanation), visible))


def masked_vote(vote: Document, *, is_regression: bool) -> dict[str, object]:
    """What one principal said of a record: a comment may quote any cell, and what a regression
    should have said is a number like the one withheld; a rating and classes stay.
    """
    masked = dict(vote)
    if "comment" in masked:
        masked["comment"] = None
    if is_regression and isinstance(labels := masked.get("labels"), list):
        masked["labels"] = [None] * len(labels)
    return masked


def _kept(document: Document, keys: Collection[str]) -> dict[str, object]:
    return {name: value if name in keys else None for name, value in document.items()}


def _prediction(prediction: Document | None) -> dict[str, object] | None:
    """A classifier's label alone; a regression's decision, where policy makes one.

    A label and a decision are two bounds of the same probability, so a classifier's decision is
    withheld; a value is a number that the masked one may follow from.
    """
    if prediction is None:  # erased
        return None
    allowed = "label" if "label" in prediction else "decision"
    return _kept(prediction, (allowed,))


def _explanation(explanation: Document | None, visible: Visible | None) -> Document | None:
    if explanation is None:
        return None
    masked = _kept(explanation, EXPLANATION_KEYS)
    if explanation["status"] in REASONED:
        masked["reason"] = WITHHELD
    if isinstance(reasons := explanation.get("reasons"), list):
        masked["reasons"] = [NO_REASONS] * len(reasons)
    is_complete = explanation["status"] == "complete"
    return {**masked, "visible": visible if is_complete else None}


def _column(pointer: str) -> str:
    """The column a JSON pointer into a request ends in."""
    return pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
