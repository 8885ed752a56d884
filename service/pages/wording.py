"""What documents say in codes, as people read it."""

from collections.abc import Mapping
from urllib.parse import urlencode

from service.pages.drawing import exact

STATUS_TEXTS = {
    "pending": "The explanation is being computed. This page asks again by itself.",
    "failed": "The prediction was made, but its explanation failed.",
    "skipped": "The prediction was not explained.",
}
NOT_ASKED = "The prediction was not explained, as nobody asked for it."
WARNING_TEXTS = {
    "out_of_training_range": "lies outside the range seen in training",
    "unseen_category": "is a category that was not seen in training",
}
SPACE_TEXTS = {
    "log_odds": "log-odds",
    "margin": "margin before softmax",
    "probability": "probability",
    "log": "logarithm of the predicted value",
    "raw": "the predicted value's own unit",
}
EFFECTS = {1: "raises it", -1: "lowers it", 0: "no effect"}


def moment(text: str) -> str:
    """A stored time (RFC 3339, UTC) to the second."""
    return f"{text[:10]} {text[11:19]} UTC" if text.endswith("Z") else text


def link(path: str, query: Mapping[str, str], **changes: object) -> str:
    """A URL of the service; a parameter whose change is None is left out."""
    merged = {**query, **changes}
    left = {name: str(value) for name, value in merged.items() if value is not None}
    return f"{path}?{urlencode(left)}" if left else path


def facts(document: Mapping[str, object]) -> list[tuple[str, str]]:
    """A flat document's members that are there, for a list of terms."""
    found = []
    for name, value in document.items():
        text = _text(name, value)
        if text:
            found.append((name.replace("_", " "), text))
    return found


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {exact(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(exact(each) for each in value)
    return moment(str(value)) if name.endswith("_at") else exact(value)
