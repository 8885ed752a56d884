"""How outputs and classes are called in answers."""

import orjson

from explainers.base import Level
from service.models.base import NativeModel


def output_names(native: NativeModel, classes: tuple[Level, ...] | None) -> tuple[str, ...]:
    """Binary: the positive class; multiclass: all; regression: `value`."""
    if classes is None:
        return ("value",)
    text = tuple(class_text(label) for label in classes)
    return text[1:] if native.task == "binary" else text


def class_text(label: Level) -> str:
    """A class as an object key: text as it is, numbers and booleans as JSON writes them."""
    return label if isinstance(label, str) else orjson.dumps(label).decode()
