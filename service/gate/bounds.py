"""What a new version may differ by before it is blocked: defaults, and a file or options over them.

The defaults are measured (docs/releases.md): a model trained again on a bootstrap sample of the
same rows stays inside them on tables of 1,000 rows and more.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from service.errors import InvalidInputError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Largest values that pass, smallest for `*_min` and the four agreements.

    label_flips: share of rows with another label. score_gap: mean |difference| of scores
    (probabilities; for regression in standard deviations of the old predictions). score_psi: of
    the scores. swapped_columns: share of the difference between the versions that goes away when
    two columns are swapped. spearman, ndcg: of the columns' mean |value|. sign_agreement: by size.
    share_shift: of one column's share in all attribution. column_correlation: of one column's
    attributions with the old ones, where its share was at least `column_share_min`.
    new_column_share: of a column the old version did not have. background_effect: what the new
    background does to the old model's attributions, relative to them. stability_drop: of the mean
    cosine with perturbed neighbours. slice_gap: mean difference of scores that a slice of at least
    `slice_rows_min` rows has beyond doubt. auc_drop, rmse_rise (relative): that the labels show
    beyond doubt. auc_gain, rmse_fall: above which it is a leak rather than progress. refused_rows:
    share of the rows that only the new version refuses. explained_rows_min: explained rows below
    which attributions are not compared, which blocks where both versions explain.
    same_background, same_schema, same_explainer: whether those must not change at all.
    require_card: whether a model card nobody has begun blocks; a begun one must be current anyway.
    """

    rows_min: int = 100
    explained_rows_min: int = 50
    label_flips: float = 0.15
    score_gap: float = 0.15
    score_psi: float = 0.25
    swapped_columns: float = 0.1
    spearman: float = 0.7
    ndcg: float = 0.9
    sign_agreement: float = 0.8
    share_shift: float = 0.15
    column_correlation: float = 0.5
    column_share_min: float = 0.08
    new_column_share: float = 0.25
    background_effect: float = 0.10
    stability_drop: float = 0.05
    slice_gap: float = 0.10
    slice_rows_min: int = 30
    auc_drop: float = 0.02
    auc_gain: float = 0.10
    rmse_rise: float = 0.05
    rmse_fall: float = 0.5
    refused_rows: float = 0.0
    same_background: bool = True
    same_schema: bool = True
    same_explainer: bool = True
    require_card: bool = False

    def changed(self, changes: Mapping[str, object], *, source: str) -> Self:
        """With other values. Raises UsageError for an unknown name or a value that is none."""
        types = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        for name, value in changes.items():
            if name not in types:
                raise UsageError(f"{source}: there is no bound {name!r}; {', '.join(types)}")
            if not _fits(value, types[name]):
                raise UsageError(f"{source}: {name} takes {_MEANT[types[name]]}, not {value!r}")
        return replace(self, **changes)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path | None, options: tuple[str, ...] = ()) -> Self:
        """From a TOML file and `name=value` options, which win.

        Raises InvalidInputError, UsageError.
        """
        bounds = cls()
        if path is not None:
            bounds = bounds.changed(_document(path), source=str(path))
        return bounds.changed(dict(map(_parsed, options)), source="--bound")


_MEANT: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def _fits(value: object, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and value > 0
    return isinstance(value, int | float) and math.isfinite(value)


def _document(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: {error}") from error


def _parsed(option: str) -> tuple[str, object]:
    name, separator, text = option.partition("=")
    try:
        if separator:
            return name.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    raise UsageError(f"--bound takes NAME=VALUE, not {option!r}")
