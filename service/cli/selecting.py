"""Which records a command is about, and the store they are in."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.evidence import EvidenceStore, RequestKey
    from service.settings import Settings


@dataclass(frozen=True)
class Selection:
    """By request, by subject, by both (a subject's part in these requests), or by model and time.

    Raises UsageError for anything else.
    """

    settings: "Settings"
    tenant: str
    request_ids: tuple[str, ...] = ()
    subject: str | None = None
    model: str | None = None
    period: tuple[datetime | None, datetime | None] = (None, None)

    def __post_init__(self) -> None:
        from service.errors import UsageError

        is_by_person = bool(self.request_ids) or self.subject is not None
        if is_by_person == (self.model is not None):
            raise UsageError("name records by --request-id, --subject or --model")
        if self.model is None and self.period != (None, None):
            raise UsageError("--since and --until go with --model")

    @cached_property
    def keyed_subject(self) -> str | None:
        """As it stands in records."""
        if self.subject is None:
            return None
        from service.errors import UnavailableError
        from service.secrets import Keyring

        if not self.settings.secret_file.exists():  # one made now would find nobody
            raise UnavailableError(f"there is no secret file {self.settings.secret_file}")
        keyring = Keyring.open(self.settings.secret_file)
        return keyring.keyed_subject(self.tenant, self.subject)

    @property
    def manner(self) -> str:
        """By what the records were chosen; never whose they are."""
        named = {"request_id": self.request_ids, "subject": self.subject, "model": self.model}
        return " and ".join(name for name, value in named.items() if value)

    def keys(self, store: "EvidenceStore") -> "Iterable[RequestKey]":
        """The records. Raises UnknownError for request IDs of which none is known."""
        from service.disposal import of_model, of_requests, of_subject
        from service.errors import UnknownError

        if self.model is not None:
            return of_model(store, self.tenant, self.model, self.period)
        named = of_requests(store, self.tenant, self.request_ids)
        if self.request_ids and not named:
            raise UnknownError("there is no record of these requests")
        if self.keyed_subject is None:
            return named
        about = of_subject(store, self.tenant, self.keyed_subject)
        return [key for key in about if key in set(named)] if named else about
