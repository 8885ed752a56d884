"""All compiled code: a cached kernel that called compiled code of another file would keep calling
its old version. Importing this module imports numba, so callers import it where they need it.

Arrays are contiguous and writeable throughout, so that every kernel has exactly one signature.
Indices are unsigned: numba guards signed ones against counting from the end.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

Whole = int | np.int64
"""What compiled code takes for an int64."""

NAN_LEFT = np.uint8(1)
ZERO_SPECIAL = np.uint8(2)
ZERO_LEFT = np.uint8(4)
TINY = float(np.float32(1e-35))

LEAF = np.uint32(1 << 31)
"""Set in a child's code when the rest of the code counts leaves, not splits."""

MAX_PLAYERS = 64
"""Distinct players on one path: the sets of the walk are 64-bit words."""

PIECE_BITS = 8
"""Bits of a narrow piece's pattern, and players its rows have room for."""

WIDE_BITS = 13
"""The same of a wide piece: for leaves with more players on their path."""

MOST_JOINED = 32
"""Leaves of a piece whose common conditions are joined: finding it costs the square of this."""

FAIR_SIZE = 4096.0
"""Numbers in a table that weigh as much as one more table: between a quarter and four times this,
neither memory nor time differs much.
"""

BLOCK_BYTES = 1 << 18
"""Bits and sums of rows that are looked up together: they stay in a core's second cache."""

MOST_BLOCK_ROWS = 64

PREFETCHED_PIECES = np.uint64(16)
"""So many pieces' rows are on their way from memory at once; 64 or 256 make no difference."""

LINKS = ("logit", "softmax", "log", "identity")
LOGIT, SOFTMAX, LOG, IDENTITY = range(len(LINKS))

ZERO_BYTE = np.uint8(0)
NOT_FINITE = np.uint8(1)
NOT_DUMMY = np.uint8(2)

ZERO = np.uint64(0)
ONE = np.uint64(1)
TWO = np.uint64(2)
WORD_BITS = np.uint64(64)


class Decisions(NamedTuple):
    """D distinct decisions sorted by column, over G tested columns; K of them test categories."""

    columns: NDArray[np.uint32]  # (G,)
    starts: NDArray[np.uint32]  # (G + 1,) where each column's decisions begin
    zero_special: NDArray[np.bool_]  # (G,) some decision on the column has ZERO_SPECIAL
    thresholds: NDArray[np.float64]  # (D,)
    codes: NDArray[np.uint8]  # (D,) NAN_LEFT, ZERO_SPECIAL and ZERO_LEFT or-ed
    category_decisions: NDArray[np.uint32]  # (K,) which decisions test categories
    category_columns: NDArray[np.uint32]  # (K,)
    category_start: NDArray[np.uint32]
    category_words: NDArray[np.uint32]
    member_left: NDArray[np.bool_]
    category_bits: NDArray[np.uint32]


class Trees(NamedTuple):
    """How I splits and L leaves hang together; a child is a split's index or LEAF | leaf index."""

    roots: NDArray[np.uint32]  # (T,) coded like children
    children: NDArray[np.uint32]  # (I, 2) left, right
    decisions: NDArray[np.uint32]  # (I,)
    slots: NDArray[np.uint8]  # (I,) which distinct player of its path this is
    players: NDArray[np.uint32]  # (I,)
    leaf_values: NDArray[np.float64]  # (L, V)
    tree_output: NDArray[np.uint32]  # (T,)
    depth: int
    weights: NDArray[np.float64]  # (most players on a path + 1, same): see `walk`


class Reference(NamedTuple):
    """A background of B rows as W words of bits; W is even."""

    masks: NDArray[np.uint64]  # (I, W) which rows each split sends left
    everyone: NDArray[np.uint64]  # (W,) bits of all rows
    n_rows: int


class Paths(NamedTuple):
    """Ways from the leaves up. An edge is 2 * split + side, side 1 the right; -1 is none."""

    above: NDArray[np.int32]  # (I,) the edge that leads to a split
    earlier: NDArray[np.int32]  # (I,) the nearest edge above that tests the same player
    players: NDArray[np.int64]  # (I,) as in Trees
    decisions: NDArray[np.int64]  # (I,)
    n_decisions: Whole
    depth: Whole
    leaf_edges: NDArray[np.int32]  # (L,)
    leaf_trees: NDArray[np.int32]  # (L,)
    leaf_players: NDArray[np.int32]  # (L,) distinct players on the path
    weights: NDArray[np.float64]  # as in Trees


class Ways(NamedTuple):
    """The paths to some leaves of one tree, from the root down."""

    edges: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Work(NamedTuple):
    """Room to compute one leaf's values of up to d players in."""

    satisfied: NDArray[np.uint64]  # (d, W) the background rows that satisfy a player's conditions
    counts: NDArray[np.int64]  # (2^d,)
    lost: NDArray[np.float64]  # (2^d,)
    values: NDArray[np.float64]  # (2^d, d)


class Pieces(NamedTuple):
    """K sets of leaves, each explained by one table of at most G bits and players. A bit below D
    is a decision, D + edge says whether a row satisfies all conditions from the root to this edge
    on this edge's player.
    """

    first: NDArray[np.int64]  # (K,) first leaf in `leaves`
    stop: NDArray[np.int64]
    prefix: NDArray[np.int64]  # (K,) edges from the root that enter as one bit a player
    bits: NDArray[np.int64]  # (K, G + 1) padded with -1, their number the last
    players: NDArray[np.int64]  # (K, G + 1) same
    leaves: NDArray[np.int64]  # the leaves, piece by piece


class Tables(NamedTuple):
    """What a row is explained by: E further bits, K narrow pieces and Q wide ones.

    The buffer of bits holds the D decisions, a 0, and the further bits. A target is the place in
    the row's sums: player * C + first output; players that pad a row have a place of their own.
    """

    bit_sources: NDArray[np.uint16]  # (E, 2) each bit is the conjunction of two, each taken
    bit_flips: NDArray[np.uint8]  # (E, 2) as it is (0) or negated (1)
    piece_bits: NDArray[np.uint16]  # (K, 8) padded with the 0
    piece_targets: NDArray[np.uint16]  # (K, 8)
    piece_starts: NDArray[np.uint32]  # (K,) first row in `rows`
    rows: NDArray[np.float32]  # (R, 8): V rows for each pattern of a piece's bits
    wide_bits: NDArray[np.uint16]  # all Q pieces' bits, one after the other
    wide_bit_stops: NDArray[np.uint32]  # (Q,)
    wide_targets: NDArray[np.uint16]
    wide_target_stops: NDArray[np.uint32]
    wide_starts: NDArray[np.uint64]  # (Q,) first number in `wide`
    wide: NDArray[np.float32]  # V rows, one number a target, for each pattern of a piece's bits
    width: int
    scale: float


class Arrangement(NamedTuple):
    """Depth-first order of all trees: which node became which split or leaf."""

    split_nodes: NDArray[np.int32]  # (I,)
    leaf_nodes: NDArray[np.int32]  # (L,)
    roots: NDArray[np.uint32]
    children: NDArray[np.uint32]
    slots: NDArray[np.uint8]
    depth: int
    most_players: int


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    try:
        kernel: Callable[P, R] = njit(nogil=True, cache=True)(function)
    except RuntimeError as error:
        # Neither beside this file nor in NUMBA_CACHE_DIR can anything be written.
        if "no locator available" not in str(error):
            raise
        kernel = njit(nogil=True)(function)
    return kernel


@_compiled
def _ones(word: np.uint64) -> np.uint64:
    # LLVM knows this pattern and emits one instruction.
    word -= (word >> ONE) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> TWO) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@_compiled
def _lowest(word: np.uint64) -> np.uint64:
    return _ones((word & (ZERO - word)) - ONE)


@_compiled
def arrange(
    roots: NDArray[np.int32],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    players: NDArray[np.int32],
    n_players: int,
) -> Arrangement:
    """Number splits and leaves depth-first; players (M,) is -1 at leaves.

    Stops early, with most_players beyond MAX_PLAYERS or more splits and leaves than nodes (depth
    -1: the links form no tree), when the result is of no use.
    """
    n_nodes = len(left)
    split_nodes = np.empty(n_nodes, np.int32)
    leaf_nodes = np.empty(n_nodes, np.int32)
    children = np.zeros((n_nodes, 2), np.uint32)
    slots = np.zeros(n_nodes, np.uint8)
    coded_roots = np.empty(len(roots), np.uint32)
    on_path = np.empty(n_players, np.int32)
    todo = np.empty((n_nodes + 2, 5), np.int64)  # node, parent split, side, depth, path's players
    n_splits, n_leaves, deepest, most = 0, 0, 0, 0
    for tree in range(len(roots)):
        todo[0, 0], todo[0, 1], todo[0, 2], todo[0, 3], todo[0, 4] = roots[tree], -1, 0, 0, 0
        top = 1
        while top > 0:
            top -= 1
            node, parent, side, depth, known = todo[top]
            if n_splits + n_leaves == n_nodes:
                deepest, top = -1, 0
                break
            if left[node] < 0:
                leaf_nodes[n_leaves] = node
                code = np.uint32(n_leaves) | LEAF
                n_leaves += 1
            else:
                split_nodes[n_splits] = node
                code = np.uint32(n_splits)
                slot = 0
                while slot < known and on_path[slot] != players[node]:
                    slot += 1
                on_path[slot] = players[node]
                slots[n_splits] = slot
                known = max(known, slot + 1)
                deepest = max(deepest, depth + 1)
                most = max(most, known)
                for right_side in range(2):
                    child = left[node] if right_side else right[node]
                    todo[top, 0], todo[top, 1], todo[top, 2] = child, n_splits, 1 - right_side
                    todo[top, 3], todo[top, 4] = depth + 1, known
                    top += 1
                n_splits += 1
            if parent < 0:
                coded_roots[tree] = code
            else:
                children[parent, side] = code
        if deepest < 0 or most > MAX_PLAYERS:
            break
    return Arrangement(
        split_nodes[:n_splits].copy(),
        leaf_nodes[:n_leaves].copy(),
        coded_roots,
        children[:n_splits].copy(),
        slots[:n_splits].copy(),
        deepest,
        most,
    )


@_compiled
def _decide_row(
    row: NDArray[np.float64], decisions: Decisions, goes_left: NDArray[np.uint8]
) -> None:
    for g in range(np.uint64(len(decisions.columns))):
        x = row[decisions.columns[g]]
        start = np.uint64(decisions.starts[g])
        stop = np.uint64(decisions.starts[g + ONE])
        if np.isnan(x):
            for i in range(start, stop):
                goes_left[i] = decisions.codes[i] & NAN_LEFT
            continue
        for i in range(start, stop):
            goes_left[i] = np.uint8(x <= decisions.thresholds[i])
        if decisions.zero_special[g] and abs(x) <= TINY:
            for i in range(start, stop):
                if decisions.codes[i] & ZERO_SPECIAL:
                    goes_left[i] = np.uint8((decisions.codes[i] & ZERO_LEFT) != 0)
    for k in range(np.uint64(len(decisions.category_decisions))):
        i = decisions.category_decisions[k]
        x = row[decisions.category_columns[k]]
        code = decisions.codes[i]
        if np.isnan(x):
            goes_left[i] = code & NAN_LEFT
        elif code & ZERO_SPECIAL and abs(x) <= TINY:
            goes_left[i] = np.uint8((code & ZERO_LEFT) != 0)
        else:
            member = False
            if -1.0 < x < 32.0 * decisions.category_words[k]:
                level = np.uint64(x)
                at = decisions.category_start[k] + (level >> np.uint64(5))
                word = decisions.category_bits[at]
                member = ((word >> np.uint32(level & np.uint64(31))) & np.uint32(1)) != 0
            goes_left[i] = np.uint8(member == decisions.member_left[k])


@_compiled
def round_to_float32(rows: NDArray[np.float64]) -> None:
    """Round (N, P) in place, beyond the largest float32 to infinity."""
    for n in range(np.uint64(rows.shape[0])):
        for p in range(np.uint64(rows.shape[1])):
            rows[n, p] = np.float32(rows[n, p])


@_compiled
def strongest(
    contributions: NDArray[np.float64], most: Whole
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N, K) entries of each row of (N, E) by falling magnitude, K = min(most, E), equal ones in
    order, and (N, K) their contributions. A row with NaN, which no check passes, comes in any
    order.
    """
    n_rows, n_entries = contributions.shape
    size = np.uint64(min(most, n_entries))
    entries = np.zeros((n_rows, size), np.int64)
    picked = np.zeros((n_rows, size))
    for n in range(np.uint64(n_rows)):
        found = ZERO
        for e in range(np.uint64(n_entries)):
            value = contributions[n, e]
            if found == size and (size == ZERO or abs(value) <= abs(picked[n, size - ONE])):
                continue
            at = found if found < size else size - ONE
            while at > ZERO and abs(picked[n, at - ONE]) < abs(value):
                entries[n, at] = entries[n, at - ONE]
                picked[n, at] = picked[n, at - ONE]
                at -= ONE
            entries[n, at] = e
            picked[n, at] = value
            found = min(found + ONE, size)
    return entries, picked


@_compiled
def decide(rows: NDArray[np.float64], decisions: Decisions) -> NDArray[np.uint8]:
    """(N, D): 1 where a decision sends a row left. Rows (N, P) are already rounded to float32 for
    models that read float32.
    """
    goes_left = np.empty((len(rows), len(decisions.thresholds)), np.uint8)
    for n in range(len(rows)):
        _decide_row(rows[n], decisions, goes_left[n])
    return goes_left


@_compiled
def masks_of(goes_left: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(D, W): for each decision a bit for each of B rows (B, D) that goes left; W is even."""
    n_rows, n_decisions = goes_left.shape
    masks = np.zeros((n_decisions, 2 * ((n_rows + 127) // 128)), np.uint64)
    for n in range(np.uint64(n_rows)):
        for i in range(np.uint64(n_decisions)):
            masks[i, n // WORD_BITS] |= np.uint64(goes_left[n, i]) << (n % WORD_BITS)
    return masks


@_compiled
def ensemble_outputs(
    rows: NDArray[np.float64],
    decisions: Decisions,
    trees: Trees,
    base: NDArray[np.float64],
    divisor: float,
    float32_sums: bool,  # noqa: FBT001
) -> NDArray[np.float64]:
    """(N, C) by plain traversal over the decision bits.

    Rounding each float64 sum of two float32 numbers to float32 gives the float32 sum exactly.
    """
    outputs = np.zeros((len(rows), len(base)))
    goes_left = np.empty(len(decisions.thresholds), np.uint8)
    width = np.uint64(trees.leaf_values.shape[1])
    for n in range(np.uint64(len(rows))):
        _decide_row(rows[n], decisions, goes_left)
        if divisor == 1.0:
            outputs[n] = base
        for t in range(np.uint64(len(trees.roots))):
            code = trees.roots[t]
            while not code & LEAF:
                left = np.uint64(goes_left[trees.decisions[code]])
                code = trees.children[code, ONE - left]
            first = np.uint64(trees.tree_output[t]) if width == ONE else ZERO
            for v in range(width):
                total = outputs[n, first + v] + trees.leaf_values[code ^ LEAF, v]
                outputs[n, first + v] = np.float32(total) if float32_sums else total
        if divisor != 1.0:
            for c in range(np.uint64(len(base))):
                mean = outputs[n, c] / divisor
                if float32_sums:
                    mean = np.float64(np.float32(mean))
                total = base[c] + mean
                outputs[n, c] = np.float32(total) if float32_sums else total
    return outputs


@_compiled
def walk(
    rows: NDArray[np.float64],
    decisions: Decisions,
    trees: Trees,
    reference: Reference,
    n_players: int,
    n_outputs: int,
) -> NDArray[np.float64]:
    """(N, F, C) interventional Shapley values, summed over trees and background rows.

    A state is a split with the background rows for which a hybrid of the explained row and them
    gets there: they and the row agree on all players of the path, but for the set A that only the
    row satisfies and the set B that only they satisfy. weights[i, j] = (i-1)! j! / (i+j)!, 0 for
    i = 0: what a leaf gives each member of A (a, b), and takes from each member of B (b, a).

    Masks of a state's children lie at the level of their depth: all states below one have been
    taken from the stack before its level is written again.
    """
    values = np.empty((len(rows), n_players, n_outputs))
    sums = np.empty(n_players * n_outputs)
    goes_left = np.empty(len(decisions.thresholds), np.uint8)
    row_goes_left = np.empty(len(trees.decisions), np.uint8)
    words = np.uint64(reference.masks.shape[1])
    weights = trees.weights
    width = np.uint64(trees.leaf_values.shape[1])
    outputs = np.uint64(n_outputs)
    size = 2 * trees.depth + 4
    todo = np.empty(size, np.uint32)
    only_row = np.empty(size, np.uint64)
    only_background = np.empty(size, np.uint64)
    mask_at = np.empty(size, np.uint64)
    alive = np.empty((size, words), np.uint64)
    alive[1] = reference.everyone
    on_path = np.empty(MAX_PLAYERS, np.uint64)  # where in `sums` each player's outputs begin
    for n in range(np.uint64(len(rows))):
        _decide_row(rows[n], decisions, goes_left)
        for i in range(np.uint64(len(row_goes_left))):
            row_goes_left[i] = goes_left[trees.decisions[i]]
        sums[:] = 0.0
        for t in range(np.uint64(len(trees.roots))):
            if trees.roots[t] & LEAF:
                continue
            first = np.uint64(trees.tree_output[t]) if width == ONE else ZERO
            todo[0], only_row[0], only_background[0], mask_at[0] = trees.roots[t], 0, 0, 1
            top = ONE
            while top > ZERO:
                top -= ONE
                split = todo[top]
                A = only_row[top]
                B = only_background[top]
                here = mask_at[top]
                slot = np.uint64(trees.slots[split])
                bit = ONE << slot
                own = np.uint64(trees.players[split]) * outputs + first
                on_path[slot] = own
                row_left = np.uint64(row_goes_left[split])
                near = trees.children[split, ONE - row_left]
                far = trees.children[split, row_left]
                undecided = ((A | B) & bit) == ZERO
                flip = row_left - ONE
                in_a = ZERO - ((A >> slot) & ONE)
                agree = (here | ONE) + ONE
                differ = agree + ONE
                n_agree = ZERO
                n_differ = ZERO
                w = ZERO
                # Two words a step: loops of unknown, tiny length cost a fifth of the walk.
                while w < words:
                    m = alive[here, w]
                    same = m & ((reference.masks[split, w] ^ flip) | in_a)
                    other = m ^ same
                    n_agree += _ones(same)
                    n_differ += _ones(other)
                    alive[agree, w] = same
                    alive[differ, w] = other
                    w += ONE
                    m = alive[here, w]
                    same = m & ((reference.masks[split, w] ^ flip) | in_a)
                    other = m ^ same
                    n_agree += _ones(same)
                    n_differ += _ones(other)
                    alive[agree, w] = same
                    alive[differ, w] = other
                    w += ONE
                near_is_leaf = (near & LEAF) != 0
                far_is_leaf = (far & LEAF) != 0
                near_gives = near_is_leaf and (n_agree != ZERO or undecided)
                far_gives = far_is_leaf and n_differ != ZERO
                if near_gives or far_gives:
                    a = _ones(A)
                    b = _ones(B)
                    near_a, near_b, near_own, far_a, far_b, far_own = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                    if near_is_leaf:
                        near_a = np.float64(n_agree) * weights[a, b]
                        near_b = np.float64(n_agree) * weights[b, a]
                        if undecided:
                            near_own = np.float64(n_differ) * weights[a + ONE, b]
                            near_a += near_own
                            near_b += np.float64(n_differ) * weights[b, a + ONE]
                    if far_is_leaf:
                        b_far = b + np.uint64(undecided)
                        far_a = np.float64(n_differ) * weights[a, b_far]
                        far_b = np.float64(n_differ) * weights[b_far, a]
                        if undecided:
                            far_own = far_b
                    for v in range(width):
                        near_value = trees.leaf_values[near ^ LEAF, v] if near_is_leaf else 0.0
                        far_value = trees.leaf_values[far ^ LEAF, v] if far_is_leaf else 0.0
                        sums[own + v] += near_value * near_own - far_value * far_own
                        to_a = near_value * near_a + far_value * far_a
                        to_b = near_value * near_b + far_value * far_b
                        # One loop over both sets: where a loop ends is what is hard to predict.
                        members = A | B
                        while members != ZERO:
                            member = _lowest(members)
                            gain = to_a if (A >> member) & ONE else -to_b
                            sums[on_path[member] + v] += gain
                            members &= members - ONE
                if not far_is_leaf and n_differ != ZERO:
                    todo[top], only_row[top], mask_at[top] = far, A, differ
                    only_background[top] = B | bit
                    top += ONE
                if not near_is_leaf:
                    if undecided and n_differ != ZERO:
                        todo[top], only_row[top], mask_at[top] = near, A | bit, differ
                        only_background[top] = B
                        top += ONE
                    if n_agree != ZERO:
                        todo[top], only_row[top], mask_at[top] = near, A, agree
                        only_background[top] = B
                        top += ONE
        for f in range(np.uint64(n_players)):
            for c in range(outputs):
                values[n, f, c] = sums[f * outputs + c]
    return values


@_compiled
def _add_pairs(
    only_row: np.uint64,
    only_background: np.uint64,
    on_path: NDArray[np.uint32],
    n_rows: float,
    leaf_values: NDArray[np.float64],
    first: np.uint64,
    weights: NDArray[np.float64],
    pairs: NDArray[np.float64],
) -> None:
    """Add to pairs (F, F, C) what a leaf of values (V,) gives them from output `first` on, each
    on one side of the diagonal.

    The game "all of A, none of B" has the interaction index (a-2)! b! / (a+b-1)! for two of A,
    a! (b-2)! / (a+b-1)! for two of B, and -(a-1)! (b-1)! / (a+b-1)! for one of each.
    """
    a, b = _ones(only_row), _ones(only_background)
    two_of_a = n_rows * weights[a - ONE, b] if a > ZERO else 0.0
    two_of_b = n_rows * weights[b - ONE, a] if b > ZERO else 0.0
    one_of_each = -n_rows * weights[a, b - ONE] if b > ZERO else 0.0
    members = only_row | only_background
    while members != ZERO:
        i = _lowest(members)
        members &= members - ONE
        i_in_a = (only_row >> i) & ONE
        alike = two_of_a if i_in_a else two_of_b
        others = members
        while others != ZERO:
            j = _lowest(others)
            others &= others - ONE
            share = alike if ((only_row >> j) & ONE) == i_in_a else one_of_each
            for v in range(np.uint64(len(leaf_values))):
                pairs[on_path[i], on_path[j], first + v] += share * leaf_values[v]


@_compiled
def _finish_pairs(pairs: NDArray[np.float64], values: NDArray[np.float64], divisor: float) -> None:
    """Mirror half of what has been added to pairs (F, F, C); give the diagonal the rest of values
    (F, C).
    """
    n_players, n_outputs = values.shape
    for c in range(np.uint64(n_outputs)):
        for i in range(np.uint64(n_players)):
            for j in range(i):
                half = (pairs[i, j, c] + pairs[j, i, c]) / divisor * 0.5
                pairs[i, j, c] = half
                pairs[j, i, c] = half
        for i in range(np.uint64(n_players)):
            shared = 0.0
            for j in range(np.uint64(n_players)):
                shared += pairs[i, j, c]
            pairs[i, i, c] = values[i, c] - shared


@_compiled
def walk_pairs(
    rows: NDArray[np.float64],
    decisions: Decisions,
    trees: Trees,
    reference: Reference,
    values: NDArray[np.float64],
    divisor: float,
    pairs: NDArray[np.float64],
) -> None:
    """Fill pairs (N, F, F, C), zeros before, so that their rows sum to values (N, F, C).

    The walk, but that leaves are states too: what a leaf adds grows with the square of its path,
    beside which its own place on the stack costs little. divisor is the ensemble's.
    """
    goes_left = np.empty(len(decisions.thresholds), np.uint8)
    words = np.uint64(reference.masks.shape[1])
    width = np.uint64(trees.leaf_values.shape[1])
    size = 2 * trees.depth + 4
    todo = np.empty(size, np.uint32)
    only_row = np.empty(size, np.uint64)
    only_background = np.empty(size, np.uint64)
    mask_at = np.empty(size, np.uint64)
    n_alive = np.empty(size, np.uint64)
    alive = np.empty((size, words), np.uint64)
    alive[1] = reference.everyone
    on_path = np.empty(MAX_PLAYERS, np.uint32)
    for n in range(np.uint64(len(rows))):
        _decide_row(rows[n], decisions, goes_left)
        for t in range(np.uint64(len(trees.roots))):
            first = np.uint64(trees.tree_output[t]) if width == ONE else ZERO
            todo[0], only_row[0], only_background[0], mask_at[0] = trees.roots[t], 0, 0, 1
            n_alive[0] = reference.n_rows
            top = ONE
            while top > ZERO:
                top -= ONE
                code = todo[top]
                A = only_row[top]
                B = only_background[top]
                if code & LEAF:
                    _add_pairs(
                        A,
                        B,
                        on_path,
                        np.float64(n_alive[top]),
                        trees.leaf_values[code ^ LEAF],
                        first,
                        trees.weights,
                        pairs[n],
                    )
                    continue
                here = mask_at[top]
                slot = np.uint64(trees.slots[code])
                bit = ONE << slot
                on_path[slot] = trees.players[code]
                row_left = np.uint64(goes_left[trees.decisions[code]])
                near = trees.children[code, ONE - row_left]
                far = trees.children[code, row_left]
                undecided = ((A | B) & bit) == ZERO
                flip = row_left - ONE
                in_a = ZERO - ((A >> slot) & ONE)
                agree = (here | ONE) + ONE
                differ = agree + ONE
                n_agree = ZERO
                n_differ = ZERO
                for w in range(words):
                    m = alive[here, w]
                    same = m & ((reference.masks[code, w] ^ flip) | in_a)
                    n_agree += _ones(same)
                    n_differ += _ones(m ^ same)
                    alive[agree, w] = same
                    alive[differ, w] = m ^ same
                if n_differ != ZERO:
                    todo[top], only_row[top], mask_at[top] = far, A, differ
                    only_background[top], n_alive[top] = B | bit, n_differ
                    top += ONE
                    if undecided:
                        todo[top], only_row[top], mask_at[top] = near, A | bit, differ
                        only_background[top], n_alive[top] = B, n_differ
                        top += ONE
                if n_agree != ZERO:
                    todo[top], only_row[top], mask_at[top] = near, A, agree
                    only_background[top], n_alive[top] = B, n_agree
                    top += ONE
        _finish_pairs(pairs[n], values[n], np.float64(reference.n_rows) * divisor)


@_compiled
def trace(trees: Trees, n_decisions: int) -> Paths:
    """The way up from every split and leaf."""
    n_splits, n_leaves = len(trees.children), len(trees.leaf_values)
    above = np.full(n_splits, -1, np.int32)
    earlier = np.full(n_splits, -1, np.int32)
    split_trees = np.zeros(n_splits, np.int32)
    known = np.zeros(n_splits, np.int32)
    leaf_edges = np.full(n_leaves, -1, np.int32)
    leaf_trees = np.zeros(n_leaves, np.int32)
    leaf_players = np.zeros(n_leaves, np.int32)
    for t in range(len(trees.roots)):
        if trees.roots[t] & LEAF:
            leaf_trees[trees.roots[t] ^ LEAF] = t
        else:
            split_trees[trees.roots[t]] = t
    for split in range(n_splits):
        edge = above[split]
        while edge >= 0 and trees.players[edge >> 1] != trees.players[split]:
            edge = above[edge >> 1]
        earlier[split] = edge
        players = known[split] + (edge < 0)
        for side in range(2):
            code = trees.children[split, side]
            if code & LEAF:
                leaf = code ^ LEAF
                leaf_edges[leaf] = 2 * split + side
                leaf_trees[leaf] = split_trees[split]
                leaf_players[leaf] = players
            else:
                above[code] = 2 * split + side
                split_trees[code] = split_trees[split]
                known[code] = players
    return Paths(
        above,
        earlier,
        trees.players.astype(np.int64),
        trees.decisions.astype(np.int64),
        n_decisions,
        trees.depth,
        leaf_edges,
        leaf_trees,
        leaf_players,
        trees.weights,
    )


@_compiled
def _climb(leaf: Whole, paths: Paths, path: NDArray[np.int64]) -> Whole:
    """Write the edges from the root to a leaf into path; their number."""
    edge = np.int64(paths.leaf_edges[leaf])
    length: Whole = np.int64(0)
    while edge >= 0:
        path[length] = edge
        length += 1
        edge = np.int64(paths.above[edge >> 1])
    for i in range(length >> 1):
        path[i], path[length - 1 - i] = path[length - 1 - i], path[i]
    return length


@_compiled
def _joined_bit(edge: Whole, paths: Paths) -> Whole:
    """The bit of all conditions down to an edge on its player."""
    alone: Whole = paths.decisions[edge >> 1]
    return alone if paths.earlier[edge >> 1] < 0 else paths.n_decisions + edge


@_compiled
def _superseded(i: Whole, prefix: Whole, path: NDArray[np.int64], paths: Paths) -> bool:
    """Whether a later edge of the prefix tests the same player."""
    for k in range(i + 1, prefix):
        if paths.players[path[k] >> 1] == paths.players[path[i] >> 1]:
            return True
    return False


@_compiled
def _add(item: Whole, found: NDArray[np.int64]) -> Whole:
    """Where item is among the found; how many there are is the last entry.

    The first that finds no room is counted, but has no place.
    """
    room = len(found) - 1
    count: Whole = found[room]
    for k in range(min(count, room)):
        if found[k] == item:
            return k
    if count < room:
        found[count] = item
    found[room] = min(count + 1, room + 1)
    return count


@_compiled
def _add_path(
    path: NDArray[np.int64],
    start: Whole,
    stop: Whole,
    prefix: Whole,
    paths: Paths,
    found: NDArray[np.int64],
) -> None:
    """Add the bits of a path's edges from start to stop, of which `prefix` count as joined."""
    for i in range(start, stop):
        if i >= prefix:
            _add(paths.decisions[path[i] >> 1], found)
        elif not _superseded(i, prefix, path, paths):
            _add(_joined_bit(path[i], paths), found)


@_compiled
def _add_paths(
    ways: Ways,
    first: Whole,
    stop: Whole,
    prefix: Whole,
    paths: Paths,
    found: NDArray[np.int64],
) -> None:
    """Find the bits that leaves of one tree need together, given the edges they share."""
    found[:-1] = -1
    found[-1] = 0
    _add_path(ways.edges[first], np.int64(0), prefix, prefix, paths, found)
    for k in range(first, stop):
        _add_path(ways.edges[k], prefix, ways.lengths[k], prefix, paths, found)


@_compiled
def _add_players(
    path: NDArray[np.int64], length: Whole, paths: Paths, found: NDArray[np.int64]
) -> None:
    for i in range(length):
        _add(paths.players[path[i] >> 1], found)


@_compiled
def _widest(leaves: NDArray[np.int64], paths: Paths) -> Whole:
    """The most of these leaves in one tree."""
    widest: Whole = np.int64(0)
    run: Whole = np.int64(0)
    for k in range(len(leaves)):
        new = k == 0 or paths.leaf_trees[leaves[k]] != paths.leaf_trees[leaves[k - 1]]
        run = np.int64(1) if new else run + 1
        widest = max(widest, run)
    return widest


@_compiled
def cut(paths: Paths, leaves: NDArray[np.int64], room: Whole) -> Pieces:
    """Cut each tree's leaves (ascending, with paths of 1 to `room` players) into runs that share
    a table: few of them, with small tables.

    The leaves of a run need all their decisions as bits or, where these are too many, those below
    their common path and one bit for each player on it.
    """
    n = len(leaves)
    first = np.empty(n, np.int64)
    stop = np.empty(n, np.int64)
    prefix = np.empty(n, np.int64)
    bits = np.empty((n, room + 1), np.int64)
    players = np.empty((n, room + 1), np.int64)
    width = _widest(leaves, paths)
    ways = Ways(np.empty((width, paths.depth), np.int64), np.empty(width, np.int64))
    cost = np.empty(width + 1)
    begin = np.empty(width + 1, np.int64)
    joined = np.empty(width + 1, np.int64)
    decisions = np.empty(room + 1, np.int64)
    together = np.empty(room + 1, np.int64)
    who = np.empty(room + 1, np.int64)
    none = np.int64(0)
    n_pieces = 0
    base: Whole = 0
    while base < n:
        tree = paths.leaf_trees[leaves[base]]
        size = np.int64(0)
        while base + size < n and paths.leaf_trees[leaves[base + size]] == tree:
            ways.lengths[size] = _climb(leaves[base + size], paths, ways.edges[size])
            size += 1
        cost[0] = 0.0
        cost[1 : size + 1] = np.inf
        for s in range(size):
            decisions[room], who[room] = 0, 0
            shared = ways.lengths[s]
            for e in range(s, size):
                _add_players(ways.edges[e], ways.lengths[e], paths, who)
                if who[room] > room:
                    break
                common = np.int64(0)
                shared = min(shared, ways.lengths[e])
                while common < shared and ways.edges[e, common] == ways.edges[s, common]:
                    common += 1
                shared = common
                _add_path(ways.edges[e], none, ways.lengths[e], none, paths, decisions)
                used = none
                needed = decisions[room]
                if needed > room:
                    if e - s >= MOST_JOINED:
                        break
                    used = shared
                    _add_paths(ways, s, e + 1, used, paths, together)
                    needed = together[room]
                    if needed > room:
                        break
                across = np.int64(PIECE_BITS) if room == PIECE_BITS else who[room]
                total = cost[s] + 1.0 + (across << needed) / FAIR_SIZE
                if total < cost[e + 1]:
                    cost[e + 1], begin[e + 1], joined[e + 1] = total, s, used
        end: Whole = size
        while end > 0:
            start = begin[end]
            first[n_pieces], stop[n_pieces] = base + start, base + end
            prefix[n_pieces] = joined[end]
            _add_paths(ways, start, end, joined[end], paths, bits[n_pieces])
            players[n_pieces] = -1
            players[n_pieces, room] = 0
            for k in range(start, end):
                _add_players(ways.edges[k], ways.lengths[k], paths, players[n_pieces])
            n_pieces += 1
            end = start
        base += size
    return Pieces(
        first[:n_pieces].copy(),
        stop[:n_pieces].copy(),
        prefix[:n_pieces].copy(),
        bits[:n_pieces].copy(),
        players[:n_pieces].copy(),
        leaves,
    )


@_compiled
def _unit_values(
    path: NDArray[np.int64],
    slots: NDArray[np.int64],
    d: Whole,
    reference: Reference,
    weights: NDArray[np.float64],
    work: Work,
) -> None:
    """What a leaf of value 1 gives each of d players, work.values (2^d, d), for each pattern p of
    players whose conditions the row satisfies, averaged over the background.

    slots: which player each edge of the path tests. A background row of pattern q counts where p
    or q has every player; then A = not q and B = not p.
    """
    for j in range(d):
        work.satisfied[j] = reference.everyone
    for i in range(len(slots)):
        flip = ZERO - np.uint64(path[i] & 1)
        for w in range(len(reference.everyone)):
            work.satisfied[slots[i], w] &= reference.masks[path[i] >> 1, w] ^ flip
    full = (np.int64(1) << d) - 1
    for p in range(full + 1):
        work.counts[p] = 0
        work.lost[p] = 0.0
        for j in range(d):
            work.values[p, j] = 0.0
    for row in range(np.uint64(reference.n_rows)):
        pattern = ZERO
        for j in range(np.uint64(d)):
            word = work.satisfied[j, row // WORD_BITS]
            pattern |= ((word >> (row % WORD_BITS)) & ONE) << j
        work.counts[pattern] += 1
    for q in range(full + 1):
        if work.counts[q] == 0:
            continue
        share = work.counts[q] / reference.n_rows
        only_row = full ^ q
        a = _ones(np.uint64(only_row))
        also = q
        while True:
            given = only_row | also
            b = _ones(np.uint64(full ^ given))
            work.lost[given] += share * weights[b, a]
            gain = share * weights[a, b]
            members = np.uint64(only_row)
            while members != ZERO:
                work.values[given, _lowest(members)] += gain
                members &= members - ONE
            if also == 0:
                break
            also = (also - 1) & q
    for p in range(full + 1):
        for j in range(d):
            if not (p >> j) & 1:
                work.values[p, j] = -work.lost[p]


@_compiled
def _work(d: Whole, n_words: int) -> Work:
    size = np.int64(1) << d
    return Work(
        np.empty((d, n_words), np.uint64),
        np.empty(size, np.int64),
        np.empty(size),
        np.empty((size, d)),
    )


@_compiled
def fill_pieces(
    paths: Paths,
    reference: Reference,
    pieces: Pieces,
    places: NDArray[np.int64],
    leaf_values: NDArray[np.float64],
    numbers: NDArray[np.float32],
) -> None:
    """Write each piece's V rows for each pattern of its bits; leaf_values is (L, V).

    places (K, 2): where its first row begins in numbers, and how long its rows are.
    """
    room = pieces.bits.shape[1] - 1
    width = leaf_values.shape[1]
    path = np.empty(paths.depth, np.int64)
    slots = np.empty(paths.depth, np.int64)
    work = _work(room, len(reference.everyone))
    who = np.empty(room + 1, np.int64)
    columns = np.empty(room, np.int64)
    wanted = np.empty(room, np.int64)
    unwanted = np.empty(room, np.int64)
    sums = np.empty((width << room, room))
    for k in range(len(pieces.first)):
        prefix = pieces.prefix[k]
        n_bits = pieces.bits[k, room]
        sums[: width << n_bits] = 0.0
        for at in range(pieces.first[k], pieces.stop[k]):
            leaf = pieces.leaves[at]
            length = _climb(leaf, paths, path)
            who[room] = 0
            wanted[:] = 0
            unwanted[:] = 0
            for i in range(length):
                split = path[i] >> 1
                slot = _add(paths.players[split], who)
                slots[i] = slot
                negated = (path[i] & 1) == 1
                bit = paths.decisions[split]
                if i < prefix:
                    if _superseded(i, prefix, path, paths):
                        continue
                    bit = _joined_bit(path[i], paths)
                    negated = negated and paths.earlier[split] < 0
                mask = np.int64(1) << _add(bit, pieces.bits[k])
                if negated:
                    unwanted[slot] |= mask
                else:
                    wanted[slot] |= mask
            d = who[room]
            for j in range(d):
                columns[j] = _add(who[j], pieces.players[k])
            _unit_values(path, slots[:length], d, reference, paths.weights, work)
            for pattern in range(1 << n_bits):
                p = np.int64(0)
                for j in range(d):
                    given = pattern & (wanted[j] | unwanted[j])
                    possible = (wanted[j] & unwanted[j]) == 0
                    p |= np.int64(possible and given == wanted[j]) << j
                for v in range(width):
                    value = leaf_values[leaf, v]
                    for j in range(d):
                        sums[pattern * width + v, columns[j]] += value * work.values[p, j]
        start, across = places[k]
        for i in range(width << n_bits):
            for j in range(across):
                numbers[start + i * across + j] = sums[i, j]


@_compiled
def _bits_of_row(
    row: NDArray[np.float64], decisions: Decisions, tables: Tables, bits: NDArray[np.uint8]
) -> None:
    """Decisions, a 0, and the bits that join others."""
    _decide_row(row, decisions, bits)
    further = np.uint64(len(decisions.thresholds) + 1)
    for k in range(np.uint64(len(tables.bit_sources))):
        one = bits[tables.bit_sources[k, 0]] ^ tables.bit_flips[k, 0]
        two = bits[tables.bit_sources[k, 1]] ^ tables.bit_flips[k, 1]
        bits[further + k] = one & two


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_typing: Any, array: Any, row: Any) -> Any:
    """Have a row of a two-dimensional array fetched while the code goes on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        found = context.make_array(kind)(context, builder, arguments[0])
        place = [arguments[1], context.get_constant(types.intp, 0)]
        pointer = cgutils.get_item_pointer(context, builder, kind, found, place)
        number, address = cgutils.int32_t, cgutils.voidptr_t
        shape = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [address, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [address], shape)
        to_read, into_all_caches, data = number(0), number(3), number(1)
        where = builder.bitcast(pointer, address)
        builder.call(prefetch, [where, to_read, into_all_caches, data])
        return context.get_dummy_value()

    return types.void(array, row), generate


@_compiled
def _add_narrow(
    tables: Tables, bits: NDArray[np.uint8], sums: NDArray[np.float64], n_rows: np.uint64
) -> None:
    """Table by table, not row by row: rows of a block share what of it is in the caches. Of the
    tables, megabytes between two batches of a busy server, one line each is read per row: the next
    ones are on their way while their places are found (35 us a row became 13, 10 hot became 8).
    """
    width = np.uint64(tables.width)
    n_pieces = np.uint64(len(tables.piece_starts))
    places = np.empty((PREFETCHED_PIECES, n_rows), np.uint64)
    first = ZERO
    while first < n_pieces:
        stop = min(first + PREFETCHED_PIECES, n_pieces)
        for k in range(first, stop):
            for r in range(np.uint64(n_rows)):
                pattern = ZERO
                for j in range(np.uint64(PIECE_BITS)):
                    pattern |= np.uint64(bits[r, tables.piece_bits[k, j]]) << j
                at = tables.piece_starts[k] + pattern * width
                places[k - first, r] = at
                _prefetch(tables.rows, at)
        for k in range(first, stop):
            for r in range(np.uint64(n_rows)):
                at = places[k - first, r]
                for v in range(width):
                    for j in range(np.uint64(PIECE_BITS)):
                        sums[r, tables.piece_targets[k, j] + v] += tables.rows[at + v, j]
        first = stop


@_compiled
def _add_wide(tables: Tables, bits: NDArray[np.uint8], sums: NDArray[np.float64]) -> None:
    width = np.uint64(tables.width)
    bit = ZERO
    first = ZERO
    for k in range(np.uint64(len(tables.wide_starts))):
        start = bit
        pattern = ZERO
        while bit < tables.wide_bit_stops[k]:
            pattern |= np.uint64(bits[tables.wide_bits[bit]]) << (bit - start)
            bit += ONE
        across = np.uint64(tables.wide_target_stops[k]) - first
        at = tables.wide_starts[k] + pattern * across * width
        for v in range(width):
            for j in range(across):
                sums[tables.wide_targets[first + j] + v] += tables.wide[at + v * across + j]
        first += across


@_compiled
def look_up(
    rows: NDArray[np.float64],
    decisions: Decisions,
    tables: Tables,
    n_players: int,
    n_outputs: int,
) -> NDArray[np.float64]:
    """(N, F, C) Shapley values, still to be divided as the ensemble divides its trees.

    A row gets the same bytes in every batch: its sums are added up in one order.
    """
    outputs = np.uint64(n_outputs)
    n_bits = len(decisions.thresholds) + 1 + len(tables.bit_sources)
    n_sums = (n_players + 1) * n_outputs
    n_rows = np.uint64(len(rows))
    room = max(1, BLOCK_BYTES // (n_bits + 8 * n_sums))
    size = min(np.uint64(min(room, MOST_BLOCK_ROWS)), n_rows)
    bits = np.zeros((size, n_bits), np.uint8)
    sums = np.empty((size, n_sums))
    values = np.empty((len(rows), n_players, n_outputs))
    first = ZERO
    while first < n_rows:
        count = min(size, n_rows - first)
        sums[:] = 0.0
        for r in range(count):
            _bits_of_row(rows[first + r], decisions, tables, bits[r])
        _add_narrow(tables, bits, sums, count)
        for r in range(count):
            _add_wide(tables, bits[r], sums[r])
            for f in range(np.uint64(n_players)):
                for c in range(outputs):
                    values[first + r, f, c] = sums[r, f * outputs + c] * tables.scale
        first += count
    return values


@_compiled
def logistic_float32(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) probabilities 1 / (1 + exp(-m) + 1e-16) in float32 throughout, as XGBoost computes it.

    numpy's float32 exp rounds differently; this one calls the C library's expf.
    """
    one = np.float32(1.0)
    tiny = np.float32(1e-16)
    probabilities = np.empty(len(margins), np.float32)
    for n in range(np.uint64(len(margins))):
        # XGBoost caps the exponent to stay finite (kCrtExpMax).
        exponent = min(-margins[n], np.float32(88.7))
        probabilities[n] = one / (one + np.float32(math.exp(exponent)) + tiny)
    return probabilities


@_compiled
def _relative(gap: float, scale: float) -> float:
    """The gap over the scale. An infinite scale would make any gap vanish; 0 needs no scale."""
    if not (math.isfinite(gap) and math.isfinite(scale)):
        return math.inf
    return 0.0 if gap == 0.0 else gap / scale


@_compiled
def _invert_link(outputs: NDArray[np.float64], link: Whole, scores: NDArray[np.float64]) -> None:
    """Fill (K,) the scores that follow from (C,) outputs; K is 2 where C is 1 and they are two
    probabilities, else C.
    """
    count = np.uint64(len(outputs))
    for c in range(count):
        output = outputs[c]
        if link == LOGIT:
            output = 1.0 / (1.0 + math.exp(-output))
        elif link != IDENTITY:
            output = math.exp(output - outputs.max() if link == SOFTMAX else output)
        scores[c] = output
    if link == SOFTMAX:
        scores /= scores.sum()
    if len(scores) > len(outputs):
        scores[1] = scores[0]
        scores[0] = 1.0 - scores[1]


@_compiled
def check_rows(
    values: NDArray[np.float64],
    base_values: NDArray[np.float64],
    outputs: NDArray[np.float64],
    scores: NDArray[np.float64],
    output_scale: NDArray[np.float64],
    unused: NDArray[np.int64],
    link: Whole,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """(N,) additivity errors, (N,) link errors and (N,) NOT_FINITE and NOT_DUMMY or-ed.

    What these mean: `explainers.checks`. No error is ever NaN; inf where a number is not finite.
    """
    n_rows, n_players, n_outputs = values.shape
    additivity, links = np.zeros(n_rows), np.zeros(n_rows)
    flags = np.zeros(n_rows, np.uint8)
    expected = np.empty(scores.shape[1])
    for n in range(np.uint64(n_rows)):
        finite = True
        for c in range(np.uint64(n_outputs)):
            base, output = base_values[n, c], outputs[n, c]
            total, size = base, abs(base)
            for f in range(np.uint64(n_players)):
                value = values[n, f, c]
                finite &= math.isfinite(value)
                total += value
                size += abs(value)
            finite &= math.isfinite(base) and math.isfinite(output)
            # The product is NaN unless the spread is finite; max() may lose a NaN.
            scale = max(size, abs(output), output_scale[c]) + 0.0 * output_scale[c]
            additivity[n] = max(additivity[n], _relative(abs(total - output), scale))
        _invert_link(outputs[n], link, expected)
        single = len(expected) == 1
        for k in range(np.uint64(len(expected))):
            one, other = expected[k], scores[n, k]
            scale = max(abs(one), abs(other)) if single else 1.0
            links[n] = max(links[n], _relative(abs(one - other), scale))
        dummy = True
        for i in range(np.uint64(len(unused))):
            for c in range(np.uint64(n_outputs)):
                dummy &= values[n, unused[i], c] == 0.0
        flags[n] = (ZERO_BYTE if finite else NOT_FINITE) | (ZERO_BYTE if dummy else NOT_DUMMY)
    return additivity, links, flags
