"""Compiled tables as bytes: a registered version keeps them instead of compiling at every start.

The bytes are arrays in NumPy's documented .npy format, one after the other, none of them pickled:
FORMAT, the digest of what was compiled, which trees the tables are of, then the fields of
`kernel.Tables` in their order.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.format import write_array
from numpy.typing import NDArray

from explainers.base import MalformedModelError, OutdatedTablesError
from explainers.tree import kernel
from explainers.tree.layout import LaidOutTrees
from explainers.tree.tables import CompiledTrees, aligned

FORMAT = 1
"""To be raised when tables are laid out or computed otherwise than before."""

HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][biuf]\d)', 'fortran_order': False, "
    rb"'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)
"""That of an array of numbers in C order. NumPy's own parser admits, and raises, much more."""

Array = NDArray[Any]

KINDS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "bit_sources": (np.uint16, (2,)),
    "bit_flips": (np.uint8, (2,)),
    "piece_bits": (np.uint16, (kernel.PIECE_BITS,)),
    "piece_targets": (np.uint16, (kernel.PIECE_BITS,)),
    "piece_starts": (np.uint32, ()),
    "rows": (np.float32, (kernel.PIECE_BITS,)),
    "wide_bits": (np.uint16, ()),
    "wide_bit_stops": (np.uint32, ()),
    "wide_targets": (np.uint16, ()),
    "wide_target_stops": (np.uint32, ()),
    "wide_starts": (np.uint64, ()),
    "wide": (np.float32, ()),
}
"""Type, and all lengths but the first, of the arrays of `kernel.Tables`."""

NUMBERS = frozenset({"rows", "wide"})
"""Of these the rows must not lie across cache lines."""


def pack(
    compiled: CompiledTrees, trees: LaidOutTrees, reference: kernel.Reference, *, max_bytes: int
) -> bytes:
    """The bytes of what `compile_tables` made of the same arguments; equal for equal tables."""
    stream = io.BytesIO()
    source = _source_digest(trees, reference, max_bytes)
    for part in (np.int64(FORMAT), source, compiled.kept, *compiled.tables):
        write_array(stream, np.asarray(part), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def unpack(
    data: bytes, trees: LaidOutTrees, reference: kernel.Reference, *, max_bytes: int
) -> CompiledTrees:
    """What `compile_tables` would make of the trees, from bytes whose digest has been checked.

    Raises OutdatedTablesError when the bytes are of another format or were made of other trees,
    another background or for another max_bytes; MalformedModelError when they contradict
    themselves: kernels check no bounds, so none of their indices may lead outside.
    """
    source = _source_digest(trees, reference, max_bytes)
    try:
        arrays = _arrays(data)
        if not np.array_equal(next(arrays), FORMAT):
            raise OutdatedTablesError(f"the stored tables are not of format {FORMAT}")
        if not np.array_equal(next(arrays), source):
            raise OutdatedTablesError("the stored tables are of other trees or another background")
        kept = next(arrays).copy()
        parts = dict(zip(kernel.Tables._fields, arrays, strict=True))
    except (StopIteration, TypeError, ValueError) as error:
        raise MalformedModelError(f"the stored tables cannot be read: {error}") from error
    tables = _tables(parts)
    _require(kept.dtype == np.bool_ and kept.shape == trees.trees.roots.shape, "trees")
    _check_bits(tables, n_decisions=len(trees.decisions.thresholds))
    _check_pieces(tables, trees)
    _check_wide_pieces(tables)
    return CompiledTrees(tables, kept)


def _arrays(data: bytes) -> Iterator[Array]:
    """The arrays as they lie in the bytes: what is to be kept of them is copied, once."""
    place = 0
    while place < len(data):
        header = HEADER.match(data, place)
        if header is None:
            raise ValueError(f"there is no array at byte {place}")
        kind, lengths = header.groups()
        shape = tuple(map(int, re.findall(rb"\d+", lengths)))
        array: Array = np.ndarray(shape, kind.decode(), data, header.end())
        yield array
        place = header.end() + array.nbytes


def _source_digest(
    trees: LaidOutTrees, reference: kernel.Reference, max_bytes: int
) -> NDArray[np.uint8]:
    """(32,) SHA-256 of all that decides what the tables hold.

    That is more than artifact, background and schema: a release may read the same artifact better.
    """
    n_decisions = len(trees.decisions.thresholds)
    sizes = np.array([trees.n_players, trees.n_outputs, n_decisions, max_bytes])
    digest = hashlib.sha256()
    for part in (sizes, *trees.trees, *reference):
        array = np.ascontiguousarray(part)
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(array.data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _tables(parts: dict[str, Array]) -> kernel.Tables:
    for name, (kind, lengths) in KINDS.items():
        array = parts[name]
        _require(array.dtype == kind and array.ndim == 1 + len(lengths), name)
        _require(array.shape[1:] == lengths, name)
    width, scale = parts["width"], parts["scale"]
    _require(width.shape == () and width.dtype == np.int64, "width")
    _require(scale.shape == () and scale.dtype == np.float64, "scale")
    fields: dict[str, Any] = {name: parts[name].copy() for name in KINDS.keys() - NUMBERS}
    for name in NUMBERS:
        numbers = aligned(parts[name].size)
        numbers[:] = parts[name].ravel()
        fields[name] = numbers.reshape(parts[name].shape)
    return kernel.Tables(**fields, width=int(width), scale=float(scale))


def _check_bits(tables: kernel.Tables, *, n_decisions: int) -> None:
    n_further = len(tables.bit_sources)
    _require(len(tables.bit_flips) == n_further and np.all(tables.bit_flips <= 1), "bit_flips")
    # A further bit is made of those before it.
    known = n_decisions + 1 + np.arange(n_further)
    _require(np.all(tables.bit_sources < known[:, None]), "bit_sources")
    for name in ("piece_bits", "wide_bits"):
        _require(np.all(getattr(tables, name) < n_decisions + 1 + n_further), name)


def _check_pieces(tables: kernel.Tables, trees: LaidOutTrees) -> None:
    _require(tables.width == trees.trees.leaf_values.shape[1], "width")
    n_pieces = len(tables.piece_starts)
    _require(len(tables.piece_bits) == n_pieces, "piece_bits")
    _require(len(tables.piece_targets) == n_pieces, "piece_targets")
    # The place after the decisions holds a 0: no pattern has such a bit.
    used = tables.piece_bits != len(trees.decisions.thresholds)
    patterns = 1 + (used << np.arange(kernel.PIECE_BITS)).sum(axis=1)
    ends = tables.piece_starts + patterns * tables.width
    _require(np.all(ends <= len(tables.rows)), "piece_starts")
    for name in ("piece_targets", "wide_targets"):
        last = getattr(tables, name) + np.int64(tables.width) - 1
        _require(np.all(last < (trees.n_players + 1) * trees.n_outputs), name)


def _check_wide_pieces(tables: kernel.Tables) -> None:
    n_pieces = len(tables.wide_starts)
    counts = {}
    for stops, items in (
        ("wide_bit_stops", tables.wide_bits),
        ("wide_target_stops", tables.wide_targets),
    ):
        places = getattr(tables, stops).astype(np.int64)
        counts[stops] = np.diff(places, prepend=0)
        _require(len(places) == n_pieces and np.all(counts[stops] >= 0), stops)
        _require(int(places[-1]) == len(items) if n_pieces else not len(items), stops)
    _require(np.all(counts["wide_bit_stops"] <= kernel.WIDE_BITS), "wide_bit_stops")
    _require(np.all(tables.wide_starts <= len(tables.wide)), "wide_starts")
    sizes = (counts["wide_target_stops"] << counts["wide_bit_stops"]) * tables.width
    _require(np.all(tables.wide_starts.astype(np.int64) + sizes <= len(tables.wide)), "wide_starts")


def _require(holds: "bool | np.bool_", name: str) -> None:
    if not holds:
        raise MalformedModelError(f"{name} of the stored tables do not fit the model")
