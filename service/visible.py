"""Rank and sign of the columns a caller may see, from nothing but those columns.

The stored values of these columns are no source for that: in a model with interactions they depend
on the masked columns too, and with them even their order and their signs (measured in
tests/integration/test_inversion.py). So they are reckoned again for the model in which the masked
columns are absent, averaged over the background: whatever the masked columns held, the result is
the same to the last bit. docs/access.md says more.
"""

from collections.abc import Collection

import numpy as np

from explainers.base import FloatArray
from service.logs import log, place_of
from service.masking import Visible
from service.registry import RegisteredModel

MOST_SECONDS = 5.0
"""Of model calls for one answer, by the version's calibrated cost; what is dearer gets none."""

ROUNDING = 1e-6
"""Relative to the outputs, below which an effect is none: what float32 models round away."""


def visible_ranks(
    model: RegisteredModel, rows: FloatArray, hidden: Collection[str]
) -> Visible | None:
    """Per instance and output, the visible columns by strength: feature, rank, sign, output.

    rows: (N, F) raw codes in schema order, of which the hidden columns are never read. None where
    it would take longer than MOST_SECONDS or the model has no number for it. Cost: B * (2 * V + 1)
    model rows an instance, with B background rows and V visible columns.
    """
    names = model.schema.names
    columns = [index for index, name in enumerate(names) if name not in hidden]
    n_rows = len(rows) * len(model.background.rows) * (2 * len(columns) + 1)
    if n_rows * _seconds_per_row(model) > MOST_SECONDS:
        return None
    try:
        base = model.evaluate(model.background.rows).mean(axis=0)
        effects = [_effects(model, row, columns, base) for row in rows]
    except Exception as error:  # noqa: BLE001 - whatever the native library raises
        log.error("columns_not_ranked", model=model.name, place=place_of(error))
        return None
    return [_ranked(model, columns, found) for found in effects]


def _seconds_per_row(model: RegisteredModel) -> float:
    cost = model.manifest.cost
    if cost.evaluate_rows_per_second:
        return 1 / cost.evaluate_rows_per_second
    return cost.predict_row_in_batch or cost.predict_row


def _effects(
    model: RegisteredModel, row: FloatArray, columns: list[int], base: FloatArray
) -> FloatArray:
    """(V, C): the mean of what each visible column adds when it comes first and when it comes last.

    That is its Shapley value in the game of the visible columns where none of them interact in
    more than pairs: half of each pair's interaction falls to the one that comes last.
    """
    background = model.background.rows
    together = background.copy()
    together[:, columns] = row[columns]
    blocks = [together]
    for column in columns:
        first, last = background.copy(), together.copy()
        first[:, column] = row[column]
        last[:, column] = background[:, column]
        blocks += first, last
    outputs = model.evaluate(np.concatenate(blocks))
    means = outputs.reshape(len(blocks), len(background), -1).mean(axis=1)
    if not np.isfinite(means).all():
        raise FloatingPointError("there is no rank for what is no number")
    effects: FloatArray = (means[1::2] - base + means[0] - means[2::2]) / 2
    effects[np.abs(effects) <= ROUNDING * max(1.0, float(np.abs(means).max()))] = 0.0
    return effects


def _ranked(
    model: RegisteredModel, columns: list[int], effects: FloatArray
) -> list[dict[str, object]]:
    names, outputs = model.schema.names, model.manifest.explainer.output_names
    signs = np.sign(effects).astype(int).tolist()
    return [
        {
            "feature": names[columns[place]],
            "rank": rank,
            "sign": signs[place][output],
            "output": outputs[output],
        }
        for output in range(len(outputs))
        for rank, place in enumerate(np.argsort(-np.abs(effects[:, output]), kind="stable"), 1)
    ]
