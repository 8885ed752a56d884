"""What a record says of policy, as rules that decide again: the file may be another one by now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

from explainers.base import Explainer
from service.cohorts import Cohorts
from service.policy import (
    BoundRule,
    ModelPolicy,
    PolicyError,
    Reasons,
    ReasonsRule,
    Threshold,
    Vocabulary,
)
from service.registry import RegisteredModel
from service.registry.naming import class_text
from service.secrets import POLICY_KEYS, Keyring


@dataclass(frozen=True, slots=True, eq=False)
class RecordedPolicy:
    """The `policy` of a record of this version. cohort: of its reasons, None where it has none or
    its file is not at hand.
    """

    said: Mapping[str, Any]
    model: RegisteredModel
    keyring: Keyring
    reasons: ReasonsRule | None
    cohort: Explainer | None
    version_at_hand: str | None

    @classmethod
    def of(
        cls,
        parts: Mapping[str, bytes],
        model: RegisteredModel,
        keyring: Keyring,
        cohorts: Cohorts,
    ) -> Self | None:
        """None of a record that was made without a policy."""
        if "policy" not in parts:
            return None
        said = orjson.loads(parts["policy"])
        reasons = Reasons.of_policy(said)
        if reasons is None:
            return cls(said, model, keyring, None, None, None)
        rule, version = reasons.rule, cohorts.policy_version()
        cohort = cohorts.of(model, rule) if reasons.adverse else None
        return cls(said, model, keyring, rule, cohort, version)

    @property
    def lacks_cohort(self) -> bool:
        """Its reasons are relative to rows that are not at hand."""
        rule = self.reasons
        return bool(rule and rule.codes and rule.cohort_digest and self.cohort is None)

    @property
    def differing(self) -> list[str]:
        """What of it is another at hand; of reasons only, as no other number depends on it."""
        found = ["cohort_digest"] if self.lacks_cohort else []
        if self.version_at_hand not in (None, self.said["version"]):
            found.append("policy_version")
        return found

    def rules(self) -> ModelPolicy:
        """The rule that was found, the threshold and the reasons, as they are recorded."""
        said = self.said
        rule = BoundRule(said["rule"] or "", None, said["allowed"], said["probability"])
        return ModelPolicy(
            version=said["version"],
            rules=() if said["rule"] is None else (rule,),
            threshold=self._threshold(said["threshold"]),
            review_size=0,
            key_of=lambda tenant: self.keyring.key(tenant, POLICY_KEYS),
            canary=said["canary"]["probability"],
            reasons=self.reasons,
            cohort=self.cohort,
        )

    def _threshold(self, said: Mapping[str, object] | None) -> Threshold | None:
        """None also where this version has other classes: then every decision differs."""
        if said is None:
            return None
        classes = self.model.manifest.classes
        names = None if classes is None else tuple(map(class_text, classes))
        try:
            return Threshold.of_json(said, Vocabulary(self.model.schema, classes, names))
        except PolicyError:
            return None
