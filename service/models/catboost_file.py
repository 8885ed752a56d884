"""Checks a CatBoost file's structure before the library, which trusts it, reads it."""

from dataclasses import dataclass

import numpy as np

from explainers.base import FloatArray, IntArray
from service.models.errors import ModelLoadError
from service.models.flatbuffer import Table

MAGIC = b"CBM1"
HEADER_BYTES = 8
NUMBER_BYTES = 4
VERSION = "FlabuffersModel_v1"
STATISTICS = "static_provider_v1"
VALUES_PER_BUCKET = 254
ONE_HOT_SPLIT = 0xFF
MOST_BUCKETS = 0xFFFF
MOST_LEVELS = 16
"""CatBoost grows no deeper tree, whatever the policy."""

CATEGORY, FLOAT, ONE_HOT, CTR, TEXT, ESTIMATED, EMBEDDING = 4, 5, 6, 7, 12, 13, 18
"""Fields of the table of trees that list columns and what is made of them (model.fbs)."""

CATEGORY_SPLITS = {ONE_HOT: "single categories (OneHotFeature)", CTR: "statistics (OnlineCtr)"}


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """The arrays of all trees; steps and leaf_ids are empty for symmetric ones."""

    width: int
    splits: IntArray
    sizes: IntArray
    starts: IntArray
    leaf_values: FloatArray
    leaf_weights: FloatArray
    steps: IntArray
    leaf_ids: IntArray
    bias: FloatArray
    bins: IntArray

    @classmethod
    def of(cls, table: Table) -> "Trees":
        """Read them; KeyError for one that is not there."""
        return cls(
            width=table.integer(0, default=0),
            splits=table.integers(1, "<i4"),
            sizes=table.integers(2, "<i4"),
            starts=table.integers(3, "<i4"),
            leaf_values=table.reals(8, "<f8"),
            leaf_weights=table.reals(9, "<f8"),
            steps=table.integers(10, "<u4"),
            leaf_ids=table.integers(11, "<u4"),
            bias=table.reals(16, "<f8"),
            bins=table.integers(17, "<u4") if 17 in table.fields else np.zeros(0, dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a sound file says of itself."""

    n_outputs: int
    n_columns: int
    category_columns: tuple[int, ...]
    category_splits: tuple[str, ...]
    """What its trees make of categories."""


def read_file_facts(data: bytes) -> FileFacts:
    """Prove that every tree in the file stays inside its own arrays and columns.

    ModelLoadError otherwise, and for text and embedding columns, which no request can hold. Of
    the category statistics behind the trees only the sizes are checked.
    """
    if not data.startswith(MAGIC):
        raise ModelLoadError("not a CatBoost model: it does not begin with CBM1")
    size = int.from_bytes(data[len(MAGIC) : HEADER_BYTES], "little")
    core, rest = data[HEADER_BYTES : HEADER_BYTES + size], data[HEADER_BYTES + size :]
    try:
        root = Table.root(core)
        table = root.table(1)
        _check_columns(table)
        _check_frame(root, is_whole=len(core) == size, has_statistics=bool(rest))
        _check_statistics(rest)
        trees = Trees.of(table)
        _check_trees(trees, _bins(table))
    except (KeyError, ValueError) as error:
        raise ModelLoadError(f"broken CatBoost file: {error}") from error
    categories = table.tables(CATEGORY)
    return FileFacts(
        n_outputs=trees.width,
        n_columns=len(table.tables(FLOAT)) + len(categories),
        category_columns=tuple(column.integer(1, default=-1) for column in categories),
        category_splits=tuple(
            kind for field, kind in CATEGORY_SPLITS.items() if table.tables(field)
        ),
    )


def _check_frame(root: Table, *, is_whole: bool, has_statistics: bool) -> None:
    if not is_whole or root.text(0) != VERSION:
        raise ValueError("it is cut off, or of another version")
    for pair in root.tables(2):
        pair.text(0)
        pair.text(1)
    is_used = bool(root.table(1).tables(CTR))
    if is_used != has_statistics or root.texts(3) != [STATISTICS] * has_statistics:
        raise ValueError("its category statistics are not where its trees expect them")


def _check_statistics(rest: bytes) -> None:
    # Their number, then each with its size in front.
    place = NUMBER_BYTES if rest else 0
    for _ in range(int.from_bytes(rest[:NUMBER_BYTES], "little")):
        if place > len(rest):
            break
        place += NUMBER_BYTES + int.from_bytes(rest[place : place + NUMBER_BYTES], "little")
    if place != len(rest):
        raise ValueError("its category statistics are cut off")


def _check_columns(table: Table) -> None:
    for field, kind in ((TEXT, "text"), (ESTIMATED, "estimated"), (EMBEDDING, "embedding")):
        if table.tables(field):
            raise ModelLoadError(f"{kind} columns cannot be served; train without them")
    places = []
    for field, own_index in ((FLOAT, 1), (CATEGORY, 0)):
        columns = table.tables(field)
        indices = [column.integer(own_index, default=-1) for column in columns]
        if indices != list(range(len(columns))):
            raise ValueError("its columns are not in order")
        places += [column.integer(own_index + 1, default=-1) for column in columns]
    if sorted(places) != list(range(len(places))):
        raise ValueError("columns are absent; save it without drop_unused_features")
    _check_categories(table, len(table.tables(FLOAT)), len(table.tables(CATEGORY)))


def _check_categories(table: Table, n_floats: int, n_categories: int) -> None:
    single = [feature.integer(0, default=-1) for feature in table.tables(ONE_HOT)]
    used, splits = [np.array(single, dtype=np.int64)], []
    for feature in table.tables(CTR):
        combination = feature.table(0).table(0).table(0)
        used += [combination.integers(0, "<i4")] if 0 in combination.fields else []
        used += [_firsts(combination, 2)]
        splits += [_firsts(combination, 1)]
    for indices, count in ((used, n_categories), (splits, n_floats)):
        every = np.concatenate([np.zeros(0, dtype=np.int64), *indices])
        if np.any((every < 0) | (every >= count)):
            raise ValueError("a split reads a column that is not there")


def _firsts(table: Table, field: int) -> IntArray:
    """The first of the two 32-bit members of each struct."""
    if field not in table.fields:
        return np.zeros(0, dtype=np.int64)
    return table.integers(field, "<u8").astype(np.uint32).astype(np.int32).astype(np.int64)


def _bins(table: Table) -> IntArray:
    """What the library makes of each split there is, as 32-bit words: bucket, mask and number."""
    words, bucket = [np.zeros(0, dtype=np.int64)], 0
    for field in (FLOAT, ONE_HOT, CTR):
        for feature in table.tables(field):
            count = _n_values(feature, field)
            number = np.arange(count) % VALUES_PER_BUCKET + 1
            mask = (~number & 0xFF) if field == ONE_HOT else np.zeros_like(number)
            last = np.full_like(number, ONE_HOT_SPLIT) if field == ONE_HOT else number
            buckets = bucket + np.arange(count) // VALUES_PER_BUCKET
            words.append(buckets | (mask << 16) | (last << 24))
            bucket += -(-count // VALUES_PER_BUCKET)
    if bucket > MOST_BUCKETS:
        raise ValueError("it has more borders than the library can tell apart")
    return np.concatenate(words)


def _n_values(feature: Table, field: int) -> int:
    if field == ONE_HOT:
        return len(feature.integers(1, "<i4"))
    place = 3 if field == FLOAT else 1
    if place not in feature.fields:
        return 0
    borders = feature.reals(place, "<f4")
    if not np.all(np.isfinite(borders)) or np.any(np.diff(borders) <= 0):
        raise ValueError("the borders of a column do not ascend")
    return len(borders)


def _check_trees(trees: Trees, bins: IntArray) -> None:
    n_leaves = _check_sizes(trees)
    is_symmetric = not len(trees.steps)
    # A model that never split marks its nodes with a split 0 that does not exist.
    is_constant = not len(bins) and not trees.splits.any() and not trees.steps.any()
    if is_symmetric or not is_constant:
        _check_splits(trees, bins)
    if not is_symmetric:
        _check_steps(trees, n_leaves)
    elif np.any(trees.sizes > MOST_LEVELS) or n_leaves != (1 << trees.sizes).sum():
        raise ValueError("its symmetric trees have other numbers of leaves")


def _check_sizes(trees: Trees) -> int:
    sizes, width = trees.sizes, trees.width
    if width < 1 or len(trees.bias) != width or not len(sizes) or np.any(sizes < 0):
        raise ValueError("it has no trees, or no outputs")
    if np.any(trees.starts != np.cumsum(sizes) - sizes) or sizes.sum() != len(trees.splits):
        raise ValueError("its trees do not follow each other")
    n_leaves, remainder = divmod(len(trees.leaf_values), width)
    if remainder or len(trees.leaf_weights) not in (0, n_leaves):
        raise ValueError("its leaves have too few values or weights")
    if not np.all(np.isfinite(trees.leaf_values)):
        raise ValueError("a leaf is not finite")
    return n_leaves


def _check_splits(trees: Trees, bins: IntArray) -> None:
    if np.any((trees.splits < 0) | (trees.splits >= len(bins))):
        raise ValueError("a tree uses a split that is not there")
    if len(trees.bins) and not np.array_equal(trees.bins, bins[trees.splits]):
        raise ValueError("its packed splits are not those of its trees")


def _check_steps(trees: Trees, n_leaves: int) -> None:
    """Each node of a tree is reached once, in few levels, and each value node has its own leaf."""
    n_nodes = len(trees.splits)
    if not len(trees.steps) == len(trees.leaf_ids) == n_nodes or np.any(trees.sizes == 0):
        raise ValueError("its nodes have no steps")
    steps = np.column_stack([trees.steps & 0xFFFF, trees.steps >> 16])
    tree_of_node = np.repeat(np.arange(len(trees.sizes)), trees.sizes)
    levels = [trees.starts]
    for _ in range(MOST_LEVELS):
        level = levels[-1]
        parents, sides = np.nonzero(steps[level])
        children = level[parents] + steps[level[parents], sides]
        if np.any(children >= n_nodes) or np.any(
            tree_of_node[children] != tree_of_node[level[parents]]
        ):
            raise ValueError("a node leads out of its tree")
        if len(children) > n_nodes:
            break
        levels.append(children)
    if np.any(steps[levels[-1]]) or not _is_range(np.concatenate(levels), n_nodes):
        raise ValueError("a node is reached twice, never, or too deep")
    leaves, remainder = np.divmod(trees.leaf_ids[np.any(steps == 0, axis=1)], trees.width)
    if np.any(remainder) or not _is_range(leaves, n_leaves):
        raise ValueError("its nodes and leaves are not one to one")


def _is_range(numbers: IntArray, count: int) -> bool:
    return np.array_equal(np.sort(numbers), np.arange(count))
