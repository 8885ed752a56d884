"""Which request IDs are refused as personal data, and that those which services make are not."""

import random
from collections.abc import Callable
from uuid import UUID

import pytest

from service.privacy import personal_in_id
from service.uuid7 import uuid7

PERSONAL = {
    "4111111111111111": "payment_card",
    "4222222222222": "payment_card",
    "4111-1111-1111-1111": "payment_card",
    "4111.1111-1111.1111": "payment_card",
    "user4111111111111111": "payment_card",
    "order_378282246310005_2": "payment_card",
    "abc-4111111111111111": "payment_card",
    "DE89370400440532013000": "iban",
    "GB82-WEST-1234-5698-7654-32": "iban",
    "295109912611193": "fr_nir",
}


@pytest.mark.parametrize("request_id", PERSONAL)
def test_a_number_with_a_checksum_is_found(request_id: str) -> None:
    assert personal_in_id(request_id) == PERSONAL[request_id]


@pytest.mark.parametrize(
    "request_id",
    [
        "4111111111111112",  # the check digit is another
        "order-2026-0001",
        "202611220001",  # a day and a count: one in ten has an Aadhaar's check digit
        "20261122083045123456",
        "1795336245123",
        "2026-11-22-08-30-45-123456",
        "415-555-2671-0001",
        "7f3c4111111111111111",  # hexadecimal
        "bead4111-1111-1111-1111-c0ffee000000",  # a UUID, and a card in its middle
    ],
)
def test_an_ordinary_id_is_left_alone(request_id: str) -> None:
    assert personal_in_id(request_id) is None


def _uuid(draw: random.Random) -> str:
    return str(UUID(int=draw.getrandbits(128), version=4))


MADE: dict[str, Callable[[random.Random], str]] = {
    "UUID": _uuid,
    "UUIDv7": lambda _: uuid7(),
    "UUID without dashes": lambda draw: _uuid(draw).replace("-", ""),
    "UUID behind a word": lambda draw: f"req-{_uuid(draw)}",
    "hexadecimal behind a word": lambda draw: f"order_{draw.getrandbits(96):024x}",
    "ULID": lambda draw: "".join(draw.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=26)),
    "SHA-256": lambda draw: f"{draw.getrandbits(256):064x}",
    "day and count": lambda draw: f"20261122{draw.randrange(10_000):04d}",
    "seconds and count": lambda draw: f"17953362{draw.randrange(10**10):010d}",
}


@pytest.mark.parametrize("kind", MADE)
def test_ids_that_programs_make_are_practically_never_refused(kind: str) -> None:
    draw = random.Random(8)
    refused = sum(personal_in_id(MADE[kind](draw)) is not None for _ in range(20_000))
    assert refused <= 1
