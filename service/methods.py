"""How a past prediction can be explained on demand, and by which versions."""

from collections.abc import Callable

from explainers.sampled.enumeration import MOST_COLUMNS
from schemas import OnDemand
from service.registry.described import KnownVersion


def refusal(version: KnownVersion, method: OnDemand | None) -> str | None:
    """Why this version cannot be explained by that method, None if it can.

    method None: the version's own.
    """
    if method is None:
        explainer = version.manifest.explainer
        return explainer.reason if explainer.method is None else None
    return _LIMITS.get(method, _never)(version)


def _never(_: KnownVersion) -> str | None:
    return None


def _too_many_columns(version: KnownVersion) -> str | None:
    columns = len(version.schema.columns)
    if columns <= MOST_COLUMNS:
        return None
    return f"enumeration takes models of at most {MOST_COLUMNS} columns, this one has {columns}"


def _no_gradients(version: KnownVersion) -> str | None:
    library = version.manifest.artifact.library
    if library == "torch":
        return None
    return f"integrated gradients need a torch model, this one is {library}'s"


_LIMITS: dict[OnDemand, Callable[[KnownVersion], str | None]] = {
    "exact": _too_many_columns,
    "integrated_gradients": _no_gradients,
}
