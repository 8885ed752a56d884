"""Reasons of an adverse decision: the policy's table, and what follows from contributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator

from service.policy.strict import ColumnName, Name, Strict
from service.policy.terms import PolicyError, Threshold, Vocabulary, unknown

MOST_CODES = 10_000
MOST_TEXT = 500
MOST_REASONS = 10
DEFAULT_MOST = 4
DIGEST = r"^(sha256:)?[0-9a-f]{64}$"

NOTHING_SPEAKS_FOR_IT = "no column contributed to this decision"
"""Each of them speaks for another one: the threshold, or the base value, decided."""

VALUE = "value"
"""What a regression's output is called."""

Entry = Mapping[str, object]
"""What an answer says of one instance's adverse decision."""


def _told(text: str) -> str:
    if not text.strip():
        raise ValueError("a reason needs a text")
    return text


class CodeTable(Strict):
    """What a column's contribution is told as."""

    code: Name
    text: Annotated[str, Field(max_length=MOST_TEXT), AfterValidator(_told)]


class CohortTable(Strict):
    """The reference cohort: a file, relative to the policy file, and the digest it must have."""

    file: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=DIGEST)]

    @property
    def digest(self) -> str:
        """As answers and records name it."""
        return "sha256:" + self.sha256.removeprefix("sha256:")


class ReasonsTable(Strict):
    """`[models.NAME.reasons]`."""

    adverse: Name
    most: int = Field(DEFAULT_MOST, ge=1, le=MOST_REASONS)
    cohort: CohortTable | None = None
    codes: Annotated[dict[ColumnName, CodeTable], Field(max_length=MOST_CODES)]

    @field_validator("codes")
    @classmethod
    def _one_text_a_code(cls, codes: dict[str, CodeTable]) -> dict[str, CodeTable]:
        texts: dict[str, str] = {}
        for entry in codes.values():
            if texts.setdefault(entry.code, entry.text) != entry.text:
                raise ValueError(f"the code {entry.code!r} has two texts")
        return codes


@dataclass(frozen=True, slots=True)
class Coded:
    """A code and its text."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class ReasonsRule:
    """How reasons follow from contributions; all of it stands in the record of a decision.

    output, sign: contributions to this output speak for the adverse decision with this sign.
    codes: by column, in the order of the schema. cohort_digest: of the file that contributions
    are relative to, None for the version's background.
    """

    adverse: str
    most: int
    output: str
    sign: int
    codes: Mapping[str, Coded]
    cohort_digest: str | None

    def to_json(self, *, in_full: bool) -> dict[str, object]:
        """What the record says of it; without the codes where nothing was adverse."""
        codes = {name: {"code": c.code, "text": c.text} for name, c in self.codes.items()}
        return {
            "adverse": self.adverse,
            "most": self.most,
            "output": self.output,
            "sign": self.sign,
            "cohort_digest": self.cohort_digest,
            "codes": codes if in_full else None,
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        codes = {name: Coded(**coded) for name, coded in (said["codes"] or {}).items()}
        return cls(**{**said, "codes": codes})


@dataclass(frozen=True, slots=True, eq=False)
class Reasons:
    """The rule, and what was decided of each instance of one request."""

    rule: ReasonsRule
    decisions: Sequence[str | None]

    @classmethod
    def of_policy(cls, said: Mapping[str, Any]) -> Self | None:
        """Of a record's `policy`; None where there was no such rule, or what it said is erased."""
        if said.get("reasons") is None:
            return None
        return cls(ReasonsRule.of_json(said["reasons"]), said["decisions"])

    @property
    def adverse(self) -> list[int]:
        """Which instances need reasons, by place."""
        return [i for i, said in enumerate(self.decisions) if said == self.rule.adverse]

    def withheld(self, why: str) -> list[Entry | None]:
        """One entry an instance, None where the decision is not adverse."""
        return [
            self._entry(why, []) if decision == self.rule.adverse else None
            for decision in self.decisions
        ]

    def given(
        self, names: Sequence[str], contributions: Mapping[int, Sequence[float] | str]
    ) -> list[Entry | None]:
        """As `withheld`, of the adverse instances' contributions to the output, (F,) each by
        place; a text says why an instance has none.
        """
        entries: list[Entry | None] = [None] * len(self.decisions)
        for place, found in contributions.items():
            if isinstance(found, str):
                entries[place] = self._entry(found, [])
                continue
            items = items_of(self.rule, names, found)
            entries[place] = self._entry(None if items else NOTHING_SPEAKS_FOR_IT, items)
        return entries

    def _entry(self, why: str | None, items: list[dict[str, object]]) -> Entry:
        return {
            "decision": self.rule.adverse,
            "status": "given" if items else "withheld",
            "reason": why,
            "items": items,
            "cohort_digest": self.rule.cohort_digest,
        }


def items_of(
    rule: ReasonsRule, names: Sequence[str], contributions: Sequence[float]
) -> list[dict[str, object]]:
    """The codes that speak for the adverse decision, strongest first; equal ones, and the columns
    of each that speak for it, in the order of the columns.
    """
    sums: dict[str, float] = {}
    features: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for name, contribution in zip(names, contributions, strict=True):
        towards, coded = rule.sign * contribution, rule.codes[name]
        sums[coded.code] = sums.get(coded.code, 0.0) + towards
        features.setdefault(coded.code, []).extend([name] if towards > 0 else [])
        texts[coded.code] = coded.text
    found = [code for code, towards in sums.items() if towards > 0]
    found.sort(key=lambda code: -sums[code])  # stable: ties stay in the order of the columns
    return [
        {"code": code, "text": texts[code], "features": features[code], "contribution": sums[code]}
        for code in found[: rule.most]
    ]


def reasons_rule(table: ReasonsTable, threshold: Threshold, vocabulary: Vocabulary) -> ReasonsRule:
    """The table for a model of these columns and classes. Raises PolicyError."""
    names = vocabulary.schema.names
    for column in table.codes:
        if column not in names:
            raise PolicyError(f"codes: {unknown('column', column, names)}")
    absent = [name for name in names if name not in table.codes]
    if absent:
        raise PolicyError(
            f"codes: the column {absent[0]!r} has no code; every scored one needs one"
        )
    _check_no_catch_all(table)
    output, sign = _towards(table.adverse, threshold, vocabulary)
    return ReasonsRule(
        adverse=table.adverse,
        most=table.most,
        output=output,
        sign=sign,
        codes={name: Coded(table.codes[name].code, table.codes[name].text) for name in names},
        cohort_digest=None if table.cohort is None else table.cohort.digest,
    )


def _check_no_catch_all(table: ReasonsTable) -> None:
    """A code for most of the columns tells nobody what counted against him."""
    used = [entry.code for entry in table.codes.values()]
    for code in dict.fromkeys(used):
        if len(used) > 2 and 2 * used.count(code) > len(used):
            raise PolicyError(
                f"codes: {code!r} stands for {used.count(code)} of {len(used)} columns; "
                "a code for more than half of them is a catch-all"
            )


def _towards(adverse: str, threshold: Threshold, vocabulary: Vocabulary) -> tuple[str, int]:
    """The output whose contributions speak for the adverse decision, and with which sign.

    Of two classes the second one's output is explained, which is what the first one's lacks.
    """
    sign = 1 if adverse == threshold.name else -1
    names = vocabulary.class_names
    if names is None:
        return VALUE, sign
    if len(names) != 2:
        return names[threshold.score], sign
    return names[1], sign if threshold.score == 1 else -sign
