"""Reads Protocol Buffers messages field by field, never beyond their bytes."""

from collections.abc import Iterator

Field = int | memoryview
"""A varint's number, or the bytes of anything else."""

VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES = 0, 1, 2, 5
LONGEST_VARINT = 10


def fields(message: memoryview) -> Iterator[tuple[int, Field]]:
    """Number and content of every field, in file order, repeated ones each time they come.

    ValueError where the message ends within a field, or holds a group: nothing writes these.
    Source: the Protocol Buffers encoding document.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == VARINT:
            content: Field
            content, place = _varint(message, place)
        else:
            length, place = _length(message, place, kind)
            if place + length > len(message):
                raise ValueError(f"a field of {length} bytes ends beyond its message")
            content = message[place : place + length]
            place += length
        yield key >> 3, content


def integers(content: Field) -> list[int]:
    """A repeated integer field's numbers, whether they come one by one or packed; signed."""
    if isinstance(content, int):
        return [_signed(content)]
    numbers, place = [], 0
    while place < len(content):
        number, place = _varint(content, place)
        numbers.append(_signed(number))
    return numbers


def within(content: Field) -> memoryview:
    """The bytes of a field that must have some; ValueError for a number."""
    if isinstance(content, int):
        raise ValueError("a number stands where a message or text belongs")  # noqa: TRY004
    return content


def text(content: Field) -> str:
    """A text field; ValueError when it is none."""
    return bytes(within(content)).decode("utf-8")


def _length(message: memoryview, place: int, kind: int) -> tuple[int, int]:
    if kind == DELIMITED:
        return _varint(message, place)
    if kind in (EIGHT_BYTES, FOUR_BYTES):
        return (8 if kind == EIGHT_BYTES else 4), place
    raise ValueError(f"a field of wire type {kind}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for index in range(LONGEST_VARINT):
        if place + index >= len(message):
            break
        byte = message[place + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, place + index + 1
    raise ValueError("a number does not end")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
