"""A policy file and one model: names looked up, conditions made callable, misfits refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import InvalidInputError
from service.policy.deciding import BoundRule, KeyOf, ModelPolicy
from service.policy.document import DecisionRule, PolicyFile, Rule
from service.policy.expressions import Expression
from service.policy.reasons import ReasonsRule, reasons_rule
from service.policy.recourse import Recourse
from service.policy.terms import (
    COMPARE,
    PolicyError,
    Run,
    Threshold,
    Vocabulary,
    compared,
    conjunction,
    constant,
    score,
    unknown,
)

OPERATORS = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<="}


def bind(file: PolicyFile, model: str, vocabulary: Vocabulary, *, key_of: KeyOf) -> ModelPolicy:
    """The file's rules for a model with these columns and classes.

    Raises InvalidInputError naming the place in the file: a name the model does not have, a level
    or type that cannot occur.
    """
    own = file.section(model)
    place, default = f"models.{model}", file.document.default
    threshold = None
    if own.decision is not None:
        with placed(file, model, f"{place}.decision"):
            threshold = _threshold(own.decision, vocabulary)
        vocabulary = vocabulary.deciding_by(threshold)
    section, rules = (place, own.rules) if own.rules is not None else ("default", default.rules)
    bound = []
    for i, rule in enumerate(rules or ()):
        with placed(file, model, f"{section}.rules[{i}]"):
            bound.append(_bound(rule, f"{section}.rules[{i}]", vocabulary))
    _check_masks(file, model, vocabulary)
    return ModelPolicy(
        version=file.version,
        rules=tuple(bound),
        threshold=threshold,
        review_size=file.review_size(model),
        key_of=key_of,
        canary=file.canary(model),
        is_best_effort=file.evidence(model) == "best_effort",
        retention=file.retention(model),
        masks=file.masks(model),
        reasons=_reasons(file, model, threshold, vocabulary),
        recourse=_recourse(file, model, vocabulary),
    )


def _reasons(
    file: PolicyFile, model: str, threshold: Threshold | None, vocabulary: Vocabulary
) -> ReasonsRule | None:
    table = file.section(model).reasons
    if table is None or threshold is None:
        return None
    with placed(file, model, f"models.{model}.reasons"):
        return reasons_rule(table, threshold, vocabulary)


def _recourse(file: PolicyFile, model: str, vocabulary: Vocabulary) -> Recourse | None:
    section = file.section(model).recourse
    if section is None:
        return None
    with placed(file, model, f"models.{model}.recourse"):
        return Recourse.of(section, vocabulary)


def _check_masks(file: PolicyFile, model: str, vocabulary: Vocabulary) -> None:
    """Those of the default section may name columns that only other models have."""
    names = vocabulary.schema.names
    for role, entry in file.section(model).roles.items():
        with placed(file, model, f"models.{model}.roles.{role}.mask"):
            for column in entry.mask:
                if column not in names:
                    raise PolicyError(unknown("column", column, names))


@contextmanager
def placed(file: PolicyFile, model: str, place: str) -> Iterator[None]:
    """A PolicyError within as InvalidInputError that names the place in the file."""
    try:
        yield
    except PolicyError as error:
        raise InvalidInputError(
            f"policy file {file.path}: {place}, for the model {model!r}: {error}"
        ) from None


def _threshold(decision: DecisionRule, vocabulary: Vocabulary) -> Threshold:
    return Threshold(
        label=decision.label,
        score=vocabulary.score(decision.label),
        at_least=decision.at_least,
        name=decision.name,
        otherwise=decision.otherwise,
    )


def _bound(rule: Rule, place: str, vocabulary: Vocabulary) -> BoundRule:
    conditions: list[Run] = []
    if rule.prediction is not None:
        served = score(vocabulary.score(rule.prediction.label))
        conditions += [
            compared(served, COMPARE[OPERATORS[name]], constant(bound))
            for name, bound in rule.prediction.limits.items()
        ]
    if rule.when is not None:
        conditions.append(Expression.parse(rule.when).condition(vocabulary))
    return BoundRule(
        name=rule.name or place,
        condition=conjunction(conditions) if conditions else None,
        allowed=rule.explain != "never",
        probability=rule.probability,
    )
