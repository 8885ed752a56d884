"""What counts as personal data, what does not, and that no text takes long."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.privacy import ENTITIES, blacked_out, find

SPECIMENS = {
    "email": ["joe@example.com", "Joe.Doe+x@mail.example.co.uk", "jürgen@bücher.example", "a@b.de"],
    "phone": [
        "+1 415 555 2671",
        "+44 20 7946 0958",
        "+49 (0)30 901820",
        "0044 20 7946 0958",
        "(415) 555-2671",
        "415-555-2671",
        "1-415-555-2671",
        "020 7946 0958",
        "030 901820-12",
        "06 12 34 56 78",
        "06.12.34.56.78",
        "0612345678",
        "0171/1234567",
    ],
    "payment_card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111-1111 1111-1111",
        "4111.1111-1111 1111",
        "378282246310005",
        "3782 822463 10005",
        "3782-822463 10005",
        "5555555555554444",
        "2223003122003222",
        "6011111111111117",
        "30569309025904",
        "3530111333300000",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "de89370400440532013000",
        "GB82WEST12345698765432",
        "BE68 5390 0754 7034",
        "MT84MALT011000012345MTLCAST001S",
    ],
    "us_ssn": ["536-90-4399", "536 90 4399"],
    "uk_nino": ["AB123456C", "AB 12 34 56 C", "ab123456c"],
    "de_tax_id": ["36574261809", "36 574 261 809"],
    "fr_nir": ["295109912611193", "2 95 10 99 126 111 93", "253072B07300470"],
    "es_dni": ["54362315K", "54362315-K"],
    "es_nie": ["X2482300W", "X-2482300-W"],
    "it_codice_fiscale": ["RCCMNL83S18D969H", "rccmnl83s18d969h"],
    "in_aadhaar": ["234123412346", "2341 2341 2346"],
}
WRONG = {
    "email": ["joe@example", "@example.com", "joe@", "at@@example.com", "3@4.5"],
    "phone": [
        "2020-01-02",
        "01-02-2020",
        "01/02/2020 10:30",
        "01.02.2020 10:30",
        "2026-11-21T21:28:52Z",
        "192.168.100.200",
        "115-555-2671",
        "415-155-2671",
        "1234567890",
        "0000012345",
        "+12",
        "1990-2000",
    ],
    "payment_card": [
        "4111111111111112",
        "4111 1111 1111 1112",
        "4111-1111 1111-1112",
        "1111111111111117",
        "0.4111111111111111",
        "41111111111111111111",
        "550e8400-e29b-41d4-a716-446655440000",
    ],
    "iban": ["DE88370400440532013000", "QQ89370400440532013000", "DE8937040044053201300"],
    "us_ssn": [
        "000-12-3456",
        "666-12-3456",
        "912-12-3456",
        "536-00-4399",
        "536-90-0000",
        "536904399",
    ],
    "uk_nino": ["BG123456C", "AB123456E", "DB123456C", "AO123456C", "XAB123456C"],
    "de_tax_id": ["36574261808", "36554266806", "01234567890"],
    "fr_nir": ["295109912611194", "395109912611193", "295139912611103"],
    "es_dni": ["54362315A", "5436231K"],
    "es_nie": ["X2482300A", "A2482300W"],
    "it_codice_fiscale": ["RCCMNL83S18D969A", "RCCMNL83S18D96H"],
    "in_aadhaar": ["234123412347", "134123412346", "222222222222"],
}
ORDINARY = [
    "",
    "unknown",
    "critical/other existing credit",
    "100000 DM <= x < 200000 DM",
    "A11",
    "10.5",
    "Level 12 of 340",
    "§ 12 (3)",
    "radio@tv",
    "v1.2.3-rc4",
]
PAIRS = [(entity, text) for entity, texts in SPECIMENS.items() for text in texts]


def test_every_kind_has_specimens_and_near_misses() -> None:
    assert set(SPECIMENS) == set(WRONG) == set(ENTITIES)


@pytest.mark.parametrize(("entity", "text"), PAIRS)
def test_a_specimen_is_found_alone_and_inside_a_sentence(entity: str, text: str) -> None:
    assert [(f.entity, f.start, f.end) for f in find(text)] == [(entity, 0, len(text))]
    assert blacked_out(f"call me: {text}, or not") == (f"call me: [{entity}], or not", (entity,))
    assert blacked_out(f"({text})")[0] == f"([{entity}])"


@pytest.mark.parametrize(
    ("entity", "text"), [(entity, text) for entity, texts in WRONG.items() for text in texts]
)
def test_a_near_miss_is_not_that_kind(entity: str, text: str) -> None:
    assert entity not in {finding.entity for finding in find(text)}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_levels_are_left_alone(text: str) -> None:
    assert blacked_out(text) == (text, ())


def test_several_findings_are_all_blacked_out() -> None:
    text = "joe@example.com paid with 4111 1111 1111 1111 from DE89 3704 0044 0532 0130 00 TODAY"
    assert blacked_out(text) == (
        "[email] paid with [payment_card] from [iban] TODAY",
        ("email", "payment_card", "iban"),
    )


@pytest.mark.parametrize("between", ["/", "", "-", " ", ":", ".", "_"])
@pytest.mark.parametrize("number", ["4111 1111 1111 1111", "+1 415 555 2671", "536-90-4399"])
def test_an_address_right_behind_a_number_is_found_too(number: str, between: str) -> None:
    kept, found = blacked_out(f"{number}{between}joe@example.com")
    assert found[-1] == "email"
    assert "joe" not in kept
    assert number not in kept


@pytest.mark.parametrize(
    "text",
    [
        "12 4111 1111 1111 1111 5",
        "order 1234 4111 1111 1111 1111",
        "order 1234-4111 1111-1111 1111",
        "on 2026-1122 4111-1111 1111-1111",
        "x4111111111111111y",
        "id_4111111111111111",
    ],
)
def test_a_card_is_found_between_other_numbers(text: str) -> None:
    kept, found = blacked_out(text)
    assert found == ("payment_card",)
    assert "1111" not in kept


@pytest.mark.parametrize(
    "text",
    [
        "".join(chr(0xFF10 + int(digit)) for digit in "4111111111111111"),
        "٤١١١١١١١١١١١١١١١",
        "4111\u200b1111\u200b1111\u200b1111",
        "4111\u00a01111\u00a01111\u00a01111",
        "4111–1111–1111–1111",  # noqa: RUF001
        "4111–1111-1111\u00a01111",  # noqa: RUF001
        "joe＠example.com",  # noqa: RUF001
    ],
)
def test_other_scripts_digits_dashes_and_spaces_do_not_hide_it(text: str) -> None:
    assert blacked_out(text)[0] in {"[payment_card]", "[email]"}


TEXTS = st.lists(st.sampled_from([text for _, text in PAIRS]) | st.text(max_size=8), max_size=5)


@given(TEXTS)
def test_findings_are_in_order_apart_and_gone_afterwards(parts: list[str]) -> None:
    text = " | ".join(parts)
    ends = [place for finding in find(text) for place in (finding.start, finding.end)]
    assert ends == sorted(ends)
    kept, found = blacked_out(text)
    assert find(kept) == [] or len(find(kept)) < len(found)


MEBIBYTE = 1 << 20
HOSTILE = {
    "letters": "a",
    "digits": "1",
    "ats": "@",
    "half_emails": "a@",
    "dots": "x@" + "a." * 600,
    "domains": "@a.a.a.a.a.a.a.a.a.a1 ",
    "spaced_digits": "1 ",
    "almost_cards": "4444 ",
    "bad_cards": "4111111111111112 ",
    "good_cards": "4111111111111111 ",
    "bad_ibans": "DE89 3704 0044 0532 0130 01 ",
    "iban_heads": "DE11 ",
    "pluses": "+1   ",
    "brackets": "+1(",
    "zeros": "0 1",
    "tax_ids": "36574261801 ",
    "aadhaars": "234123412341 ",
    "codici": "RCCMNL83S18D969A ",
    "nirs": "295109912611192 ",
    "joined_cards": "4111-1111-1111-1111-",
    "mixed_cards": "4111-1111 1111.1112 ",
    "arabic": "٣",
    "mixture": "aB3-@. ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_twice_the_text_takes_twice_the_time(name: str) -> None:
    unit = HOSTILE[name]

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        started = time.process_time()
        find(text)
        return time.process_time() - started

    def is_in_proportion() -> bool:
        small, large = seconds(MEBIBYTE // 16), seconds(MEBIBYTE // 2)
        return large < min(4.0, 8 * 3 * small + 0.05)

    assert any(is_in_proportion() for _ in range(4))  # a busy machine takes longer, not each time


def test_random_digits_are_rarely_taken_for_something() -> None:
    rng = random.Random(7)
    texts = ["".join(rng.choices("0123456789", k=rng.randint(1, 9))) for _ in range(2000)]
    assert all(find(text) == [] for text in texts)
