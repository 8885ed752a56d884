"""Policies from text: over a small loan model, and one of `breast_cancer`."""

from pathlib import Path
from typing import Any

from schemas import ModelSchema
from service.policy import ModelPolicy, PolicyFile, Vocabulary, bind

KEY = bytes(range(32))

TUMOUR_RULES = """
[[default.rules]]
name = "small"
when = 'column("mean radius") < 10'
explain = "never"

[[default.rules]]
name = "large"
when = 'column("mean radius") > 20'
explain = "always"

[models.breast_cancer.decision]
name = "discharge"
otherwise = "look closer"
class = "benign"
at_least = 0.9
"""

SCHEMA = ModelSchema.from_json(
    {
        "type": "object",
        "properties": {
            "amount": {"type": "number"},
            "duration": {"type": ["integer", "null"]},
            "status": {"type": ["string", "null"], "enum": ["0DM", "none", None]},
            "branch": {"type": "string", "enum": ["north", "south"], "x-unknown": "ignore"},
            "rating": {"type": "integer", "enum": [1, 2, 3]},
            "is_owner": {"type": ["boolean", "null"]},
            "credit amount": {"type": "number"},
            "value": {"type": "number"},
        },
        "required": ["amount", "branch", "rating", "credit amount", "value"],
    }
)
ROW = (1000.0, 24, "0DM", "north", 2, True, 5.0, 7.0)
CLASSIFIER = Vocabulary(SCHEMA, ("good", "bad"), ("good", "bad"))
REGRESSION = Vocabulary(SCHEMA, None, None)


def row(**changes: Any) -> tuple[Any, ...]:
    """A row of the schema, with some cells changed by name."""
    cells = dict(zip(SCHEMA.names, ROW, strict=True))
    assert changes.keys() <= cells.keys()
    return tuple((cells | changes).values())


def policy_file(folder: Path, text: str) -> PolicyFile:
    path = folder / "policy.toml"
    path.write_text(text)
    return PolicyFile.read(path)


def policy(
    folder: Path, text: str, *, vocabulary: Vocabulary = CLASSIFIER, key: bytes = KEY
) -> ModelPolicy:
    """What a file of this text says of the model `loans`."""
    return bind(policy_file(folder, text), "loans", vocabulary, key_of=lambda _tenant: key)
