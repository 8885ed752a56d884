"""How a past prediction can be explained on demand, and by which versions."""

from collections.abc import Callable

from explainers.sampled.enumeration import MOST_COLUMNS
from schemas import OnDemand
from service.registry.described import KnownVersion

MOST_PAIRS = 1_000_000
"""Numbers of one record's interactions: each takes about 20 bytes, in memory several times."""


def refusal(version: KnownVersion, method: OnDemand | None, n_rows: int) -> str | None:
    """Why so many rows of this version cannot be explained by that method, None if they can.

    method None: the version's own.
    """
    if method is None:
        explainer = version.manifest.explainer
        return explainer.reason if explainer.method is None else None
    return _LIMITS.get(method, _never)(version, n_rows)


def _never(_: KnownVersion, _n_rows: int) -> str | None:
    return None


def _too_many_columns(version: KnownVersion, _: int) -> str | None:
    columns = len(version.schema.columns)
    if columns <= MOST_COLUMNS:
        return None
    return f"enumeration takes models of at most {MOST_COLUMNS} columns, this one has {columns}"


def _no_gradients(version: KnownVersion, _: int) -> str | None:
    library = version.manifest.artifact.library
    if library == "torch":
        return None
    return f"integrated gradients need a torch model, this one is {library}'s"


def _too_many_pairs(version: KnownVersion, n_rows: int) -> str | None:
    outputs = len(version.manifest.explainer.output_names)
    most = MOST_PAIRS // (len(version.schema.columns) ** 2 * max(1, outputs))
    if n_rows <= most:
        return None
    return f"interactions of this model are computed for at most {most} instances at once"


_LIMITS: dict[OnDemand, Callable[[KnownVersion, int], str | None]] = {
    "exact": _too_many_columns,
    "interactions": _too_many_pairs,
    "integrated_gradients": _no_gradients,
}
