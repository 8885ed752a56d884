"""The vocabulary every explainer shares: arrays, results, the protocol and the errors."""

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
"""Rows of raw columns, shape (N, F): numbers as they are, category columns as level codes
(see `RawColumns`), missing as NaN."""

Values = NDArray[np.float64]
"""Shape (N, F, C), in the units of output_space; sum over F + base_values = outputs."""

PairValues = NDArray[np.float64]
"""Shape (N, F, F, C), in the units of output_space; sum over the second F = values."""

IntArray = NDArray[np.int64]

BoolArray = NDArray[np.bool_]

OutputSpace = Literal["log_odds", "margin", "probability", "log", "raw"]
Link = Literal["logit", "softmax", "log", "identity"]
Method = Literal["tree_interventional", "linear", "permutation", "kernel", "exact"]
Engine = Literal["table", "walk", "closed_form", "sampler", "enumeration"]

Level = str | int | float | bool
"""One category of a category column, as it appears in JSON."""


class ExplainerError(Exception):
    """Base of what this package raises.

    ExplainerError
    ├── UnsupportedModelError   the model, or this part of it, has no exact explainer here
    ├── MalformedModelError     the artifact contradicts its own format
    ├── OutdatedTablesError     stored tables are of no use to this model or release
    ├── TooManyColumnsError     the row differs from the background in too many columns
    └── ResultTooLargeError     the answer would take more memory than is allowed
    """


class UnsupportedModelError(ExplainerError):
    """The model has no exact explainer; the message names the part and the reason."""


class MalformedModelError(ExplainerError):
    """The artifact contradicts its own format; the message names the place."""


class OutdatedTablesError(ExplainerError):
    """Stored tables are of another format or were made for another model; build without them."""


class TooManyColumnsError(ExplainerError):
    """All coalitions of so many columns are not enumerated; the message says how many are."""


class ResultTooLargeError(ExplainerError):
    """The answer would take more memory than is allowed; the message says how many rows fit."""


@dataclass(frozen=True, slots=True)
class RawColumns:
    """The raw input columns in schema order.

    levels[i] is None for a numeric column, else the column's categories in code order: the level
    `levels[i][k]` is the number `k` in a FloatArray. NaN is missing; the code -1 is a level the
    schema does not list, in columns that pass such levels on to the model.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[Level, ...] | None, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.levels):
            raise ValueError(f"{len(self.names)} names but {len(self.levels)} level lists")
        if len(set(self.names)) != len(self.names):
            raise ValueError("column names must be unique")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """The frozen reference rows that "column absent" is averaged over: (B, F) raw columns.

    digest names them in every explanation. Raises ValueError without a row.
    """

    rows: FloatArray
    digest: str

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or not len(self.rows):
            raise ValueError(f"background must be (B, F) with B >= 1, got {self.rows.shape}")

    @classmethod
    def of(cls, rows: FloatArray) -> "Background":
        """Freeze a copy of rows, (B, F), under a digest of their bytes: for use without a registry,
        which digests the file it keeps them in.
        """
        frozen = np.ascontiguousarray(rows, dtype=np.float64).copy()
        frozen.setflags(write=False)
        return cls(frozen, "sha256:" + hashlib.sha256(frozen.tobytes()).hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Attributions of N instances: values (N, F, C), base_values (N, C).

    The outputs they add up to are not here: an explainer never supplies the number it is checked
    against (`explainers.checks`). standard_errors (N, F, C) is None when exact; seeds (N,) is None
    when nothing was drawn.
    """

    values: Values
    base_values: FloatArray
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    output_space: OutputSpace
    method: Method
    engine: Engine
    exact: bool
    background_digest: str
    standard_errors: Values | None = None
    seeds: IntArray | None = None
    model_evaluations: int = 0

    def __post_init__(self) -> None:
        # Slices of these are encoded as they lie in memory.
        for name in ("values", "base_values"):
            array = getattr(self, name)
            if not array.flags.c_contiguous:
                object.__setattr__(self, name, np.ascontiguousarray(array))
        rows = self.values.shape[0]
        outputs = len(self.output_names)
        expected = (rows, len(self.feature_names), outputs)
        if self.values.shape != expected:
            raise ValueError(f"values must be {expected}, got {self.values.shape}")
        if self.base_values.shape != (rows, outputs):
            raise ValueError(f"base_values must be {(rows, outputs)}, got {self.base_values.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Pairwise Shapley interactions of the N instances of an explanation: values (N, F, F, C).

    values[n, i, j] is half of the Shapley interaction index of columns i and j, as is
    values[n, j, i]; values[n, i, i] is what is left of column i's Shapley value, its main effect.
    standard_errors (N, F, F, C) is None when exact.
    Sources: Grabisch and Roubens 1999 (the index); Lundberg et al. 2020 (the matrix).
    """

    values: PairValues
    explanation: Explanation
    standard_errors: PairValues | None = None

    def __post_init__(self) -> None:
        rows, features, outputs = self.explanation.values.shape
        if self.values.shape != (rows, features, features, outputs):
            raise ValueError(
                f"values must be {(rows, features, features, outputs)}, got {self.values.shape}"
            )


PAIR_BYTES = 256 << 20
"""Largest matrix of interactions made at once."""


def room_for_pairs(n_rows: int, naming: "Naming") -> PairValues:
    """(N, F, F, C) zeros; ResultTooLargeError where they would take more than 256 MiB."""
    features, outputs = len(naming.features), len(naming.outputs)
    row_bytes = 8 * features * features * outputs
    if n_rows * row_bytes > PAIR_BYTES:
        raise ResultTooLargeError(
            f"the interactions of {features} columns and {outputs} outputs take {row_bytes} bytes "
            f"a row: ask for at most {PAIR_BYTES // row_bytes} rows at once, not {n_rows}"
        )
    return np.zeros((n_rows, features, features, outputs))


class Explainer(Protocol):
    """Computes interventional Shapley values of raw columns, in the units of the model's
    output_space. Safe to share between threads; no row's numbers depend on the rows beside it.

    Rows X are (N, F), in schema order and coding (`RawColumns`); what the model's preprocessing
    refuses raises ValueError.
    """

    @property
    def method(self) -> Method:
        """What is computed."""
        ...

    @property
    def engine(self) -> Engine:
        """What computes it."""
        ...

    @property
    def exact(self) -> bool:
        """False: the values are estimates and carry standard errors."""
        ...

    @property
    def tolerance(self) -> float:
        """Largest additivity error that passes: 1e-5 where model or served output is float32,
        else 1e-9 (relative; see `explainers.checks`).
        """
        ...

    @property
    def output_scale(self) -> FloatArray:
        """(C,) standard deviation of the outputs over the background."""
        ...

    def outputs(self, X: FloatArray) -> FloatArray:
        """(N, C) this explainer's own reading of the model, to compare with the library's."""
        ...

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        """Attribute each output of each row of X.

        seeds: (N,) of the draws of explainers that estimate; exact ones do not read them.
        """
        ...

    def interactions(self, X: FloatArray, *, seeds: IntArray | None = None) -> Interactions:
        """Split the values of each row of X into main effects and pairs of columns.

        seeds: as for `explain`. Raises ResultTooLargeError, before anything is computed, above
        256 MiB of pairs.
        """
        ...

    def against(self, background: Background) -> "Explainer":
        """The same model's explainer over another background, ready soon rather than fast after.

        Raises ValueError when the background has another number of columns.
        """
        ...

    def stored_tables(self) -> bytes | None:
        """What `build_explainer` takes instead of compiling; None where nothing is compiled."""
        ...

    def warm_up(self) -> None:
        """Compile and touch everything the first call would otherwise pay for."""
        ...


class Derivation(Protocol):
    """Maps raw rows to the columns the fitted model sees, keeping track of whose they are."""

    @property
    def players(self) -> IntArray:
        """(P,) for each derived column the raw column it is made from."""
        ...

    def __call__(self, X: FloatArray) -> FloatArray:
        """(N, F) raw rows to (N, P) derived rows."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class IdentityDerivation:
    """The model reads the raw columns themselves."""

    players: IntArray

    @classmethod
    def over(cls, n_columns: int) -> "IdentityDerivation":
        """For a model of n_columns raw columns."""
        return cls(np.arange(n_columns, dtype=np.int64))

    def __call__(self, X: FloatArray) -> FloatArray:
        """X itself."""
        return X


@dataclass(frozen=True, slots=True)
class Naming:
    """What the axes of an explanation are called."""

    features: tuple[str, ...]
    outputs: tuple[str, ...]
    output_space: OutputSpace

    def check(self, background: Background) -> None:
        """ValueError unless the background has as many columns as there are features."""
        if background.rows.shape[1] != len(self.features):
            raise ValueError(
                f"a background of {background.rows.shape[1]} columns for a model of "
                f"{len(self.features)}"
            )
