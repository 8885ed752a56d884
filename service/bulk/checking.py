"""Which rows of a chunk the model's schema takes, and why not the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from schemas import DecodedBody, InvalidContentError, RowCodec, Violation
from service.bulk.reading import Chunk, Subjects


@dataclass(frozen=True, slots=True)
class Accepted:
    """Valid rows: the numbers they have in the file, and the rows themselves."""

    numbers: tuple[int, ...]
    body: DecodedBody

    def part(self, chosen: Sequence[int]) -> "Accepted":
        """Some of them, by place."""
        rows, codes, subjects = self.body.rows, self.body.codes, self.body.subjects
        return Accepted(
            tuple(self.numbers[i] for i in chosen),
            DecodedBody(
                [rows[i] for i in chosen],
                [codes[i] for i in chosen],
                None if subjects is None else [subjects[i] for i in chosen],
            ),
        )


def check(codec: RowCodec, chunk: Chunk) -> tuple[Accepted | None, Mapping[int, str]]:
    """The valid rows, None if there are none, and the reason of each other by its number."""
    refused = dict(chunk.broken)
    left = list(chunk.rows)
    while left:
        numbers = [number for number, _ in left]
        content: dict[str, object] = {"instances": [instance for _, instance in left]}
        if chunk.subjects is not None:
            content["subjects"] = [chunk.subjects.names[number] for number in numbers]
        try:
            decoded = codec.decode(orjson.dumps(content), max_instances=len(left))
        except InvalidContentError as error:
            refused |= _reasons(error.errors, numbers, chunk.subjects)
        else:
            return Accepted(tuple(numbers), decoded), refused
        left = [(number, instance) for number, instance in left if number not in refused]
    return None, refused


def _reasons(
    violations: Sequence[Violation], numbers: Sequence[int], subjects: Subjects | None
) -> dict[int, str]:
    """By row number; pointers are /instances/3/age and /subjects/3."""
    found: dict[int, str] = {}
    for violation in violations:
        _, member, index, *cell = violation.pointer.split("/", 3)
        column = cell[0].replace("~1", "/").replace("~0", "~") if cell else ""
        if member == "subjects" and subjects is not None:
            column = subjects.column
        reason = f"{column}: {violation.detail}" if column else violation.detail
        number = numbers[int(index)]
        found[number] = f"{found[number]}; {reason}" if number in found else reason
    return found
