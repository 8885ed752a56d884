"""The kinds of personal data that are looked for, and the check each candidate must pass.

Checksums and issuing rules are python-stdnum's wherever it has them; each source stands beside
its check.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

from stdnum import luhn, numdb
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.us import ssn

Entity = Literal[
    "email",
    "phone",
    "payment_card",
    "iban",
    "us_ssn",
    "uk_nino",
    "de_tax_id",
    "fr_nir",
    "es_dni",
    "es_nie",
    "it_codice_fiscale",
    "in_aadhaar",
]
ENTITIES: tuple[Entity, ...] = get_args(Entity)

SURE = frozenset(ENTITIES) - {"phone", "us_ssn", "uk_nino"}
"""One of these is what it looks like: it has a checksum, or an @ and a domain. The others are
numbers of a certain shape, which a product code may have as well.
"""

Check = Callable[[str], bool]
"""Whether a candidate, without its separators and in capitals, is one of the kind."""

_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d+"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|095|[689])\d+"  # Diners Club
    r"|(?:6011|64[4-9]|65|62|81|35(?:2[89]|[3-8]\d)|50|5[6-8]|6[37])\d+"  # Discover to Maestro
    r"|220[0-4]\d+|9792\d+"  # Mir, Troy
)
_CARD_DIGITS = range(13, 20)
_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")
_CLASSES = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}


def is_card(number: str) -> bool:
    """A known issuer's prefix and Luhn's check digit. Source: ISO/IEC 7812-1, annex B; the
    networks' published ranges.
    """
    fits = len(number) in _CARD_DIGITS and _CARD.fullmatch(number) is not None
    return fits and luhn.is_valid(number)


def is_iban(number: str) -> bool:
    """The country's own length and structure, and a remainder of 1 by 97. Source: ISO 13616-1 and
    SWIFT's IBAN registry, as python-stdnum keeps it.
    """
    _, structure = _structures().get(number[:2], _NO_COUNTRY)
    if structure is None or structure.fullmatch(number, 4) is None:
        return False
    return int("".join(str(int(sign, 36)) for sign in number[4:] + number[:4])) % 97 == 1


def iban_length(country: str) -> int | None:
    """How many characters that country's IBANs have; None where it has none."""
    return _structures().get(country, _NO_COUNTRY)[0]


_NO_COUNTRY = (None, None)


@cache
def _structures() -> dict[str, tuple[int, re.Pattern[str]]]:
    """By country, the length of an IBAN and what follows its first four characters."""
    registry = numdb.get("iban")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    entries = {one + two: registry.info(one + two)[0][1] for one in letters for two in letters}
    parts = {
        country: re.findall(r"(\d+)!([nac])", entry["bban"])
        for country, entry in entries.items()
        if entry
    }
    return {
        country: (
            4 + sum(int(count) for count, _ in fields),
            re.compile("".join(f"{_CLASSES[kind]}{{{count}}}" for count, kind in fields)),
        )
        for country, fields in parts.items()
    }


def is_ssn(number: str) -> bool:
    """No area 000, 666 or 9xx, no group 00, no serial 0000. Source: 20 CFR 422.103; Social
    Security Administration, randomization since 2011.
    """
    return bool(ssn.is_valid(number))


def is_nino(number: str) -> bool:
    """The letters that are given out. Source: HMRC, National Insurance Manual NIM39110."""
    return _NINO.fullmatch(number) is not None


def is_german_tax_id(number: str) -> bool:
    """One digit twice or three times, ISO 7064 mod 11,10. Source: Abgabenordnung section 139b."""
    return bool(idnr.is_valid(number))


def is_nir(number: str) -> bool:
    """97 minus the remainder by 97, with a sex and a month before. Source: INSEE, decree 82-103."""
    return number[0] in "12" and _is_month(number[3:5]) and bool(nir.is_valid(number))


def _is_month(digits: str) -> bool:
    # 20 to 42 and 50 stand for births whose month is not known; 62, 63 for foreign certificates.
    return 1 <= int(digits) <= 12 or 20 <= int(digits) <= 42 or digits in {"50", "62", "63"}


def is_dni(number: str) -> bool:
    """The letter is the remainder by 23. Source: Real Decreto 1553/2005, article 11."""
    return bool(dni.is_valid(number))


def is_nie(number: str) -> bool:
    """As a DNI, X, Y, Z being 0, 1, 2. Source: Orden INT/2058/2008."""
    return bool(nie.is_valid(number))


def is_codice_fiscale(number: str) -> bool:
    """A possible birth date and the check letter. Source: Decreto 23 December 1976, no. 13813."""
    return bool(codicefiscale.is_valid(number))


def is_aadhaar(number: str) -> bool:
    """Verhoeff's check digit, first digit 2 to 9. Source: UIDAI, circular of 13 April 2011."""
    return bool(aadhaar.is_valid(number))
