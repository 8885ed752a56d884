"""The policy file of a running service, bound to the models it serves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from service.errors import InvalidInputError
from service.policy import ModelPolicy, PolicyFile, PolicyFollower, Vocabulary, bind
from service.registry import RegisteredModel
from service.registry.naming import class_text
from service.secrets import Keyring


class Policies:
    """The rules in force, for each model in its own columns and classes."""

    def __init__(self, path: Path, keyring: Keyring) -> None:
        """Raises UnavailableError, InvalidInputError when the file cannot be used."""
        self._follower = PolicyFollower(path)
        self._file = self._follower.open()
        self._keyring = keyring

    def of(self, model: RegisteredModel) -> ModelPolicy:
        """The rules for a model. Raises InvalidInputError where they do not fit it."""
        return self._bound(self._file, model)

    def changed(self, models: Sequence[RegisteredModel]) -> Mapping[str, ModelPolicy] | None:
        """The rules of all models if the file changed and fits them all, else None."""
        file = self._follower.changed()
        if file is None:
            return None
        try:
            bound = {model.name: self._bound(file, model) for model in models}
        except InvalidInputError as error:
            self._follower.refuse(error)
            return None
        self._file = file
        self._follower.accept(file, bound)
        return bound

    def _bound(self, file: PolicyFile, model: RegisteredModel) -> ModelPolicy:
        classes = model.manifest.classes
        names = None if classes is None else tuple(map(class_text, classes))
        vocabulary = Vocabulary(model.schema, classes, names)
        return bind(file, model.name, vocabulary, key_of=self._key)

    def _key(self, tenant: str) -> bytes:
        return self._keyring.key(tenant, "policy")
