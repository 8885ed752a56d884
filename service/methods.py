"""How a past prediction can be explained on demand, by which versions, and what that takes."""

from collections.abc import Callable
from dataclasses import asdict

import orjson

from explainers.base import UnsupportedModelError
from explainers.sampled.calls import ROWS_PER_CALL, rows_called
from explainers.sampled.choose import affordable
from explainers.sampled.enumeration import MOST_COLUMNS, enumeration_rows
from explainers.sampled.gradients import STEPS
from explainers.sampled.kernel_shap import KernelConfig
from explainers.sampled.local_model import LocalModelConfig
from explainers.sampled.permutation import PermutationConfig
from schemas import Method
from service.registry.described import KnownVersion
from service.registry.layout import sha256_of

MOST_PAIRS = 1_000_000
"""Numbers of one record's interactions: each takes about 20 bytes, in memory several times."""

MOST_SECONDS = 600.0
"""Of model calls at the version's calibrated speed, for all rows of a request together. A
version's own method has no such limit: its budget a row was set at registration.
"""


def refusal(version: KnownVersion, method: Method | None, n_rows: int) -> str | None:
    """Why so many rows of this version cannot be explained by that method, None if they can.

    method None: the version's own.
    """
    own = version.manifest.explainer
    if own.method is None:
        return own.reason
    if method is None or method == own.method:
        return None
    reason = _LIMITS.get(method, _never)(version, n_rows)
    if reason is not None:
        return reason
    try:
        rows = n_rows * model_rows(version, method)
    except UnsupportedModelError as error:
        return str(error)
    seconds = rows * seconds_per_row(version)
    if seconds <= MOST_SECONDS:
        return None
    return (
        f"{n_rows} instances take up to {rows:,} model rows by {method}, {seconds:,.0f} s at this "
        f"model's measured speed: at most {MOST_SECONDS:g} s are allowed"
    )


def model_rows(version: KnownVersion, method: Method) -> int:
    """What a row takes at most by that method; 0 where the model is not called.

    Raises UnsupportedModelError where not even the least that is planned is allowed.
    """
    n_columns, n_background = len(version.schema.columns), version.manifest.background.rows
    config = sampling_config(version)
    if method == "interactions":
        own = version.manifest.explainer.method
        if own == "permutation":
            return config.pair_rows(n_columns, n_background)
        by_enumeration = enumeration_rows(n_columns, n_background, config.rows_per_call)
        return by_enumeration if own == "exact" else 0
    if method == "permutation":
        config.first_stage(n_columns, n_background)
        return config.stages(n_columns, n_background)[-1].model_rows
    return {
        "exact": enumeration_rows(n_columns, n_background, config.rows_per_call),
        "kernel": KernelConfig().model_rows(n_columns, n_background),
        "lime": rows_called(LocalModelConfig().samples, ROWS_PER_CALL),
        "integrated_gradients": STEPS + 2,
    }[method]


def sampling_config(version: KnownVersion) -> PermutationConfig:
    """How permutation sampling calls this version's model: as registered, else by its speed."""
    calls = version.manifest.explainer.calls
    if calls is not None:
        return PermutationConfig(**calls.model_dump())
    return affordable(
        PermutationConfig(),
        len(version.schema.columns),
        version.manifest.background.rows,
        seconds_per_row=seconds_per_row(version),
    )


def config_digest(version: KnownVersion, method: str | None) -> str:
    """Of what an explanation by that method is computed with: method, parameters and budget, over
    which background; the version's own for its own method, or None.
    """
    own = version.manifest.explainer
    if method is None or method == own.method:
        return own.config_digest
    config = {
        "method": method,
        "output_space": own.output_space,
        "background": version.manifest.background.digest,
        "trees_used": version.manifest.artifact.trees_used,
        "parameters": _parameters(version, method),
    }
    return sha256_of(orjson.dumps(config))


def _parameters(version: KnownVersion, method: str) -> dict[str, object]:
    sampling = asdict(sampling_config(version))
    known: dict[str, dict[str, object]] = {
        "permutation": sampling,
        "exact": {"rows_per_call": sampling["rows_per_call"]},
        "kernel": asdict(KernelConfig()),
        "interactions": {"of": version.manifest.explainer.config_digest},
        "lime": asdict(LocalModelConfig()),
        "integrated_gradients": {"steps": STEPS, "baseline": "mean of the background"},
    }
    return known[method]


def seconds_per_row(version: KnownVersion) -> float:
    """Of many rows in a call, on the registering machine."""
    cost = version.manifest.cost
    if cost.evaluate_rows_per_second:
        return 1 / cost.evaluate_rows_per_second
    return cost.predict_row_in_batch or cost.predict_row


def _never(_: KnownVersion, _n_rows: int) -> str | None:
    return None


def _not_its_own(version: KnownVersion, _: int) -> str | None:
    own = version.manifest.explainer.method
    return f"trees and linear models are explained by their own method, this version by {own}"


def _too_many_columns(version: KnownVersion, _: int) -> str | None:
    columns = len(version.schema.columns)
    if columns <= MOST_COLUMNS:
        return None
    return (
        f"enumeration takes models of at most {MOST_COLUMNS} columns, however few of them vary: "
        f"this one has {columns}"
    )


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


_LIMITS: dict[Method, Callable[[KnownVersion, int], str | None]] = {
    "tree_interventional": _not_its_own,
    "linear": _not_its_own,
    "exact": _too_many_columns,
    "interactions": _too_many_pairs,
    "integrated_gradients": _no_gradients,
}
