"""Puts the columns an artifact knows about together with what the caller adds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from explainers.base import Level, RawColumns
from service.models.base import AssumedLevels, InputColumns, Unknown
from service.models.errors import ModelLoadError, UnknownCategoriesError

Levels = tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class StoredColumns:
    """The columns of a boosting model, as far as its artifact goes.

    levels[i] is the level list stored for column i, if any; is_category[i] tells whether the model
    splits column i by category codes, and so needs one.
    """

    names: tuple[str, ...]
    levels: tuple[Levels | None, ...]
    is_category: tuple[bool, ...]
    why_no_levels: str
    names_are_given: bool = False
    assumed: tuple[AssumedLevels, ...] = ()


def check_steps_make_codes(*, learned_from_pandas: bool) -> None:
    """ModelLoadError for a last step that coded pandas categories itself: no row of a request has
    any, so its codes would be other ones.
    """
    if learned_from_pandas:
        raise ModelLoadError(
            "the last step was trained on pandas categories, which rows of a request are not; let "
            "an OrdinalEncoder among the steps make their codes, or register the last step itself"
        )


def as_numbers(stored: StoredColumns) -> StoredColumns:
    """The columns of a model behind preprocessing, where codes of categories need no levels."""
    return replace(stored, is_category=(False,) * len(stored.names))


def chosen_names(
    stored: tuple[str, ...] | None, *, given: tuple[str, ...] | None, default: tuple[str, ...]
) -> tuple[str, ...]:
    """The artifact's own names, else the caller's, else the library's default ones."""
    if stored is not None:
        return stored
    if given is not None and len(given) != len(default):
        raise ModelLoadError(f"{len(given)} column names for a model of {len(default)} columns")
    return given or default


def input_columns(
    stored: StoredColumns, *, categories: Mapping[str, Levels], unknown: Unknown
) -> InputColumns:
    """Every column with its levels; `unknown` holds for those that have some.

    The caller may also list levels for a column split by numeric thresholds (an ordered category).
    UnknownCategoriesError when a category column has none; ModelLoadError when the caller's
    levels contradict the artifact's or belong to no column.
    """
    strangers = sorted(set(categories) - set(stored.names))
    if strangers:
        raise ModelLoadError(f"--categories names columns the model does not have: {strangers}")
    levels = tuple(
        _levels_of(name, stored_levels, categories.get(name))
        for name, stored_levels in zip(stored.names, stored.levels, strict=True)
    )
    for name, known, is_category in zip(stored.names, levels, stored.is_category, strict=True):
        if is_category and known is None:
            raise UnknownCategoriesError(name, reason=stored.why_no_levels)
    try:
        raw = RawColumns(stored.names, levels)
    except ValueError as error:
        raise ModelLoadError(str(error)) from error
    return InputColumns(
        raw=raw,
        accepts_missing=(True,) * len(levels),
        unknown=tuple("refuse" if known is None else unknown for known in levels),
        names_are_given=stored.names_are_given,
        assumed=stored.assumed,
    )


def _levels_of(name: str, stored: Levels | None, given: Levels | None) -> Levels | None:
    if stored is not None and given is not None and typed(stored) != typed(given):
        raise ModelLoadError(f"--categories lists {given} for {name!r}, the artifact {stored}")
    levels = given if stored is None else stored
    if levels is not None and len(set(typed(levels))) != len(levels):
        raise ModelLoadError(f"the levels of {name!r} are not distinct")
    return levels


def typed(levels: Levels) -> tuple[tuple[type, Level], ...]:
    """The levels with their types, so that comparing them tells True from 1."""
    # True == 1 == 1.0 in Python, but not in JSON.
    return tuple((type(level), level) for level in levels)
