"""The policy file of a running service, bound to the models it serves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from service.errors import InvalidInputError
from service.logs import log
from service.policy import ModelPolicy, PolicyFollower, Vocabulary
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

    def of(self, model: RegisteredModel) -> ModelPolicy:
        """The rules for a model. Raises InvalidInputError where they do not fit it."""
        classes = model.manifest.classes
        names = None if classes is None else tuple(map(class_text, classes))
        return self._follower.bind(model.name, Vocabulary(model.schema, classes, names))

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
        return bound
