"""The policy file: TOML, read strictly; every complaint names the place in the file."""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from service.errors import InvalidInputError, UnavailableError
from service.policy.expressions import Expression
from service.policy.reasons import ReasonsTable
from service.policy.recourse import RecourseSection
from service.policy.retention import MOST_DAYS, Retention, RetentionClass
from service.policy.roles import Masks
from service.policy.strict import ColumnName, Name, Strict
from service.policy.terms import PolicyError

MOST_BYTES = 1024 * 1024
MOST_RULES = 100
MOST_REVIEWED = 10_000
MOST_MASKED = 10_000
DEFAULT_REVIEW = 100
DEFAULT_CANARY = 0.001

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Evidence = Literal["required", "best_effort"]
"""Whether a prediction is answered only with a durable record in the store, or in any case."""


class Bounds(Strict):
    """What the prediction must keep to: the probability of a class, or a regression's value."""

    label: str | None = Field(None, alias="class")
    above: Number | None = None
    at_least: Number | None = None
    below: Number | None = None
    at_most: Number | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The bounds that are given."""
        given = {name: getattr(self, name) for name in ("above", "at_least", "below", "at_most")}
        return {name: bound for name, bound in given.items() if bound is not None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.limits:
            raise ValueError("give at least one of above, at_least, below and at_most")
        lows = [self.limits[name] for name in ("above", "at_least") if name in self.limits]
        highs = [self.limits[name] for name in ("below", "at_most") if name in self.limits]
        if lows and highs and max(lows) > min(highs):
            raise ValueError("the lower bound is above the upper one: nothing can match")
        return self


def _parsed(text: str) -> str:
    try:
        Expression.parse(text)
    except PolicyError as error:
        raise ValueError(str(error)) from None
    return text


class Rule(Strict):
    """Which predictions, and what is to become of their explanation."""

    name: Name | None = None
    when: Annotated[str, AfterValidator(_parsed)] | None = None
    prediction: Bounds | None = None
    explain: Literal["always", "never", "when_asked"] | None = None
    rate: Probability | None = None

    @property
    def is_for_all(self) -> bool:
        """It has no condition."""
        return self.when is None and self.prediction is None

    @property
    def probability(self) -> float:
        """That a prediction nobody asked an explanation of gets one."""
        return self.rate if self.rate is not None else float(self.explain == "always")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.explain is None) == (self.rate is None):
            raise ValueError("give either explain or rate")
        return self


class DecisionRule(Strict):
    """The name of what is decided at or above a probability, or value, and below it."""

    name: Name
    otherwise: Name | None = None
    label: str | None = Field(None, alias="class")
    at_least: Number

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == self.otherwise:
            raise ValueError("name and otherwise are the same: nothing is decided")
        return self


def _reachable(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    for i, rule in enumerate(rules[:-1]):
        if rule.is_for_all:
            raise ValueError(f"rule {i} has no condition, so those after it are never reached")
    return rules


Rules = Annotated[
    tuple[Rule, ...], Field(strict=False, max_length=MOST_RULES), AfterValidator(_reachable)
]


class Role(Strict):
    """What callers of a role may not see: columns of the instances."""

    mask: Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=MOST_MASKED)]


class Section(Strict):
    """What holds for one model; what it does not say, the default section says."""

    rules: Rules | None = None
    roles: dict[Name, Role] = Field(default_factory=dict)
    review: int | None = Field(None, ge=0, le=MOST_REVIEWED)
    canary: Probability | None = None
    evidence: Evidence | None = None
    retention: RetentionClass | Annotated[int, Field(ge=1, le=MOST_DAYS)] | None = None


class ModelSection(Section):
    """As above, with a decision, which is about a model's own classes, its reasons, and what people
    could do to change it.
    """

    decision: DecisionRule | None = None
    recourse: RecourseSection | None = None
    reasons: ReasonsTable | None = None

    @model_validator(mode="after")
    def _reasons_are_of_a_decision(self) -> Self:
        if self.reasons is None:
            return self
        if self.decision is None:
            raise ValueError("reasons are of an adverse decision: give [models.NAME.decision] too")
        names = [self.decision.name, self.decision.otherwise]
        if self.reasons.adverse not in names:
            said = " nor ".join(repr(name) for name in names if name is not None)
            raise ValueError(f"reasons.adverse: {self.reasons.adverse!r} is not {said}")
        return self


class Document(Strict):
    """The whole file."""

    default: Section = Section()
    models: dict[str, ModelSection] = Field(default_factory=dict)

    @field_validator("default", mode="before")
    @classmethod
    def _refuse_decision(cls, node: object) -> object:
        if isinstance(node, dict) and "decision" in node:
            raise ValueError("a decision is about one model: put it under [models.NAME.decision]")
        if isinstance(node, dict) and "recourse" in node:
            raise ValueError("recourse is about one model: put it under [models.NAME.recourse]")
        return node


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy file that has been read, not yet compared with any model.

    version: `sha256:` and the digest of the parsed content; comments and spaces change nothing.
    """

    path: Path
    version: str
    document: Document

    def section(self, model: str) -> "ModelSection":
        """What the file says of one model alone."""
        return self.document.models.get(model, ModelSection())

    def masks(self, model: str) -> Masks:
        """What each role known for a model may not see; a role of its own section stands for the
        default section's of that name.
        """
        roles = {**self.document.default.roles, **self.section(model).roles}
        return {name: frozenset(role.mask) for name, role in roles.items()}

    def review_size(self, model: str) -> int:
        """How many explained requests are listed for human review."""
        sizes = (self.section(model).review, self.document.default.review, DEFAULT_REVIEW)
        return next(size for size in sizes if size is not None)

    def canary(self, model: str) -> float:
        """The share of inline explanations that a second engine checks."""
        shares = (self.section(model).canary, self.document.default.canary, DEFAULT_CANARY)
        return next(share for share in shares if share is not None)

    def evidence(self, model: str) -> Evidence:
        """What its records may do without."""
        return self.section(model).evidence or self.document.default.evidence or "required"

    def retention(self, model: str) -> Retention | None:
        """How long its records are kept; None where the file does not say."""
        for section in (self.section(model), self.document.default):
            if section.retention is not None:
                return Retention.of(section.retention)
        return None

    @classmethod
    def read(cls, path: Path) -> Self:
        """UnavailableError when it cannot be read, InvalidInputError when it is not ours."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UnavailableError(f"policy file {path}: {error.strerror}") from error
        if len(content) > MOST_BYTES:
            raise InvalidInputError(f"policy file {path}: larger than {MOST_BYTES} bytes")
        try:
            parsed = tomllib.loads(content.decode())
            document = Document.model_validate(parsed)
        except ValidationError as error:
            raise InvalidInputError(f"policy file {path}: {_complaint(error)}") from None
        except (ValueError, RecursionError) as error:  # TOML's and UTF-8's own are ValueErrors
            raise InvalidInputError(f"policy file {path}: {error}") from None
        spelling = orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)
        return cls(path, "sha256:" + hashlib.sha256(spelling).hexdigest(), document)


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    place = ""
    for step in first["loc"]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    reason = first["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place.lstrip('.') or 'the file'}: {reason}{more}"
