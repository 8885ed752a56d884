"""The policy file of a running service, bound to the models it serves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from service.cohorts import check_explained, cohort_explainer, cohort_of
from service.errors import InvalidInputError
from service.logs import log
from service.policy import (
    ModelPolicy,
    PolicyFollower,
    Vocabulary,
    hidden_by_file,
    placed,
)
from service.registry import RegisteredModel
from service.registry.naming import class_text
from service.secrets import POLICY_KEYS, Keyring


class Policies:
    """The rules in force, for each model in its own columns and classes."""

    def __init__(self, path: Path, keyring: Keyring) -> None:
        """Raises UnavailableError, InvalidInputError when the file cannot be used."""
        self._follower = PolicyFollower(
            path, key_of=lambda tenant: keyring.key(tenant, POLICY_KEYS)
        )
        self.misfits: set[str] = set()
        """Models that the rules in force do not fit, and that keep older ones."""

    def of(self, model: RegisteredModel, *, is_tried: bool = False) -> ModelPolicy:
        """The rules for a model. Raises InvalidInputError where they do not fit it.

        is_tried: beside the serving version, whose own misfit this does not end.
        """
        classes = model.manifest.classes
        names = None if classes is None else tuple(map(class_text, classes))
        vocabulary = Vocabulary(
            *(model.schema, classes, names), seen=model.seen, personal=model.personal_levels
        )
        policy = self._follower.bind(model.name, vocabulary)
        policy = self._with_cohort(policy, model)
        if not is_tried:
            self.misfits.discard(model.name)
        return policy

    def _with_cohort(self, policy: ModelPolicy, model: RegisteredModel) -> ModelPolicy:
        if policy.reasons is None:
            return policy
        file = self._follower.file
        with placed(file, model.name, f"models.{model.name}.reasons"):
            check_explained(policy.reasons, model)
            table = cohort_of(file, model.name)
            if table is None:
                return policy
            return replace(policy, cohort=cohort_explainer(file.path.parent, table, model))

    def hidden(self, model: str, roles: Sequence[str], columns: Collection[str]) -> frozenset[str]:
        """Which columns of a version that is not served callers of these roles may not see."""
        file = self._follower.file
        own = {name: frozenset(role.mask) for name, role in file.section(model).roles.items()}
        return hidden_by_file(file.masks(model), own, roles, columns)

    def review_size(self, model: str) -> int:
        """How many explained requests of a model are listed for human review."""
        return self._follower.file.review_size(model)

    def unknown_models(self, names: Collection[str]) -> list[str]:
        """Models that the file names and that are not among these."""
        return sorted(self._follower.file.document.models.keys() - {*names})

    def changed(self, models: Sequence[RegisteredModel]) -> Mapping[str, ModelPolicy] | None:
        """Once after each change, the new rules of all models they fit; None without a change.

        A model they do not fit keeps its old ones. It must not keep the others from theirs, nor
        its own next version, which may be what the new rules are for.
        """
        if not self._follower.refresh():
            return None
        bound = {}
        for model in models:
            try:
                bound[model.name] = self.of(model)
            except InvalidInputError as error:
                log.error("policy_misfit", model=model.name, error=str(error))
                self.misfits.add(model.name)
        return bound
