"""What a replay found, as clients read it."""

from schemas.strict_document import Document


class Gap(Document):
    """The largest difference between two numbers, and where it is."""

    pointer: str
    absolute: float
    relative: float


class ReplayedPart(Document):
    """One part of a decision: equal bytes, or where and by how much it differs.

    others: pointers to what differs beside numbers: text, integers, lengths.
    """

    equal: bool
    largest_gap: Gap | None
    others: list[str]


class ReplayedInputs(Document):
    """Whether the stored instances decode to what the model was fed."""

    equal: bool


class Replay(Document):
    """The answer to POST /explanations/{request_id}/replay; a part is null where there was nothing
    to compare, reason says why nothing could be.
    """

    request_id: str
    equal: bool
    reason: str | None
    inputs: ReplayedInputs | None
    predictions: ReplayedPart | None
    explanation: ReplayedPart | None
    differing_digests: list[str]
    differing_libraries: list[str]
    recorded: dict[str, str]
    running: dict[str, str]
