"""Whether the data bear out what an artifact leaves open: which level list is which column's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explainers.base import IntArray, Level
from service.errors import InvalidInputError
from service.models.base import AssumedLevels, InputColumns
from service.models.errors import UnknownCategoriesError

if TYPE_CHECKING:
    import pandas as pd

REASON = (
    "the artifact does not say whether the levels it stores are of this column; name those of "
    "every category column, ordered ones too"
)
NO_CODE = -1


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """The distinct cells of a column, how often each stands there, and the list it was given."""

    assumed: AssumedLevels
    levels: tuple[Level, ...]
    values: Sequence[float | str]
    counts: IntArray

    @classmethod
    def of(
        cls, assumed: AssumedLevels, levels: tuple[Level, ...], series: "pd.Series"
    ) -> "_Column":
        counts = series.value_counts()
        counts = counts[counts > 0]
        values = [_folded(value) for value in counts.index.tolist()]
        return cls(assumed, levels, values, np.array(counts, dtype=np.int64))

    def codes(self, levels: Sequence[Level]) -> IntArray:
        """The training codes that a list makes of the values; those it makes of none count 0."""
        code_of = {_folded(level): code for code, level in enumerate(levels)}
        return self._trained([code_of.get(value, NO_CODE) for value in self.values])

    def plain_codes(self) -> IntArray:
        """The same for values that are codes themselves."""
        return self._trained(
            [
                int(value) if isinstance(value, float) and value.is_integer() else NO_CODE
                for value in self.values
            ]
        )

    def _trained(self, codes: Sequence[int]) -> IntArray:
        known = self.assumed.codes
        return np.array([code if code in known else NO_CODE for code in codes], dtype=np.int64)

    def cells(self, codes: IntArray) -> int:
        """How many cells have one of these codes."""
        return int(self.counts[codes != NO_CODE].sum())

    @property
    def own_cells(self) -> int:
        return self.cells(self.codes(self.levels))

    @property
    def may_hold_codes(self) -> bool:
        return self.cells(self.plain_codes()) >= self.own_cells

    @property
    def is_plain(self) -> bool:
        """Reading the list or reading plain codes is the same."""
        return all(_folded(level) == code for code, level in enumerate(self.levels))

    def may_be_of(self, other: "_Column") -> bool:
        """Whether this column's list may belong elsewhere because the other's fits as well here,
        and serving it so would show in no other check.
        """
        rival = self.codes(other.levels)
        if other.levels == self.levels or self.cells(rival) < self.own_cells:
            return False
        are_numbers = all(isinstance(_folded(level), float) for level in self.levels)
        return are_numbers or bool(np.any(rival != self.codes(self.levels)))


def check_assumed(frame: "pd.DataFrame", columns: InputColumns) -> None:
    """InvalidInputError where the lists could be of other columns than those that got them.

    There are as many lists as columns, so if a list belongs elsewhere, to an ordered category that
    is split like a number, then some column has none and its cells are the codes themselves. In
    the training data the true reading turns at least as many cells into codes of the training as
    any other. So all is well when no column reads as well as plain codes. Where one does, it is
    harmless if its list says the same, and no list that says more fits a second column.

    What remains: a column coded outside the model, registered with its uncoded values, that shares
    levels with an ordered category.
    """
    levels = dict(zip(columns.raw.names, columns.raw.levels, strict=True))
    found = [
        _Column.of(assumed, levels[assumed.column] or (), frame[assumed.column])
        for assumed in columns.assumed
        if assumed.column in frame.columns
    ]
    doubtful = [column for column in found if column.may_hold_codes]
    telling = [column for column in found if not column.is_plain]
    for column in telling if doubtful else ():
        if column in doubtful or any(column.may_be_of(other) for other in found):
            raise InvalidInputError(
                str(UnknownCategoriesError(column.assumed.column, reason=REASON))
            )


def _folded(value: object) -> float | str:
    """A level, whether it was read as a number or as text."""
    text = str(value)
    try:
        return float(value) if isinstance(value, (bool, np.bool_)) else float(text)
    except ValueError:
        return text
