"""All compiled code: a cached kernel that called compiled code of another file would keep calling
its old version. Importing this module imports numba, so callers import it where they need it.

Arrays are contiguous and writeable throughout, so that every kernel has exactly one signature.
Indices are unsigned: numba guards signed ones against counting from the end.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

NAN_LEFT = np.uint8(1)
ZERO_SPECIAL = np.uint8(2)
ZERO_LEFT = np.uint8(4)
TINY = float(np.float32(1e-35))

LEAF = np.uint32(1 << 31)
"""Set in a child's code when the rest of the code counts leaves, not splits."""

MAX_PLAYERS = 64
"""Distinct players on one path: the sets of the walk are 64-bit words."""

ZERO = np.uint64(0)
ONE = np.uint64(1)
TWO = np.uint64(2)
WORD_BITS = np.uint64(64)


class Splits(NamedTuple):
    """What decides at each of I splits, in depth-first order; K of them test categories."""

    columns: NDArray[np.uint32]  # (I,)
    thresholds: NDArray[np.float64]
    codes: NDArray[np.uint8]  # (I,) NAN_LEFT, ZERO_SPECIAL and ZERO_LEFT or-ed
    category_splits: NDArray[np.uint32]  # (K,) which splits test categories
    category_start: NDArray[np.uint32]  # (K,)
    category_words: NDArray[np.uint32]
    member_left: NDArray[np.bool_]
    category_bits: NDArray[np.uint32]


class Trees(NamedTuple):
    """How I splits and L leaves hang together; a child is a split's index or LEAF | leaf index."""

    roots: NDArray[np.uint32]  # (T,) coded like children
    children: NDArray[np.uint32]  # (I, 2) left, right
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
def _decide_row(row: NDArray[np.float64], splits: Splits, goes_left: NDArray[np.uint8]) -> None:
    for i in range(np.uint64(len(splits.columns))):
        x = row[splits.columns[i]]
        code = splits.codes[i]
        nan = np.uint8(np.isnan(x))
        zero = np.uint8(abs(x) <= TINY) & (code >> np.uint8(1))
        below = np.uint8(x <= splits.thresholds[i])
        special = (nan & code) | (zero & (code >> np.uint8(2)))
        goes_left[i] = ((below & ~zero) | special) & np.uint8(1)
    for k in range(np.uint64(len(splits.category_splits))):
        i = splits.category_splits[k]
        x = row[splits.columns[i]]
        code = splits.codes[i]
        if np.isnan(x):
            goes_left[i] = code & NAN_LEFT
        elif code & ZERO_SPECIAL and abs(x) <= TINY:
            goes_left[i] = np.uint8((code & ZERO_LEFT) != 0)
        else:
            member = False
            if -1.0 < x < 32.0 * splits.category_words[k]:
                level = np.uint64(x)
                word = splits.category_bits[splits.category_start[k] + (level >> np.uint64(5))]
                member = ((word >> np.uint32(level & np.uint64(31))) & np.uint32(1)) != 0
            goes_left[i] = np.uint8(member == splits.member_left[k])


@_compiled
def decide(rows: NDArray[np.float64], splits: Splits) -> NDArray[np.uint8]:
    """(N, I): 1 where a split sends a row left. Rows (N, P) are already rounded to float32 for
    models that read float32.
    """
    goes_left = np.empty((len(rows), len(splits.columns)), np.uint8)
    for n in range(len(rows)):
        _decide_row(rows[n], splits, goes_left[n])
    return goes_left


@_compiled
def masks_of(goes_left: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(I, W): for each split a bit for each of B rows (B, I) that goes left; W is even."""
    n_rows, n_splits = goes_left.shape
    masks = np.zeros((n_splits, 2 * ((n_rows + 127) // 128)), np.uint64)
    for n in range(np.uint64(n_rows)):
        for i in range(np.uint64(n_splits)):
            masks[i, n // WORD_BITS] |= np.uint64(goes_left[n, i]) << (n % WORD_BITS)
    return masks


@_compiled
def ensemble_outputs(
    rows: NDArray[np.float64],
    splits: Splits,
    trees: Trees,
    base: NDArray[np.float64],
    divisor: float,
    float32_sums: bool,  # noqa: FBT001
) -> NDArray[np.float64]:
    """(N, C) by plain traversal over the decision bits.

    Rounding each float64 sum of two float32 numbers to float32 gives the float32 sum exactly.
    """
    outputs = np.zeros((len(rows), len(base)))
    goes_left = np.empty(len(splits.columns), np.uint8)
    width = np.uint64(trees.leaf_values.shape[1])
    for n in range(np.uint64(len(rows))):
        _decide_row(rows[n], splits, goes_left)
        if divisor == 1.0:
            outputs[n] = base
        for t in range(np.uint64(len(trees.roots))):
            code = trees.roots[t]
            while not code & LEAF:
                code = trees.children[code, ONE - np.uint64(goes_left[code])]
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
    splits: Splits,
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
    values = np.zeros((len(rows), n_players, n_outputs))
    goes_left = np.empty(len(splits.columns), np.uint8)
    words = np.uint64(reference.masks.shape[1])
    weights = trees.weights
    width = np.uint64(trees.leaf_values.shape[1])
    size = 2 * trees.depth + 4
    todo = np.empty(size, np.uint32)
    only_row = np.empty(size, np.uint64)
    only_background = np.empty(size, np.uint64)
    mask_at = np.empty(size, np.uint64)
    alive = np.empty((size, words), np.uint64)
    alive[1] = reference.everyone
    on_path = np.empty(MAX_PLAYERS, np.uint32)
    for n in range(np.uint64(len(rows))):
        _decide_row(rows[n], splits, goes_left)
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
                player = trees.players[split]
                on_path[slot] = player
                row_left = np.uint64(goes_left[split])
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
                if near_is_leaf or far_is_leaf:
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
                        c = first + v
                        near_value = trees.leaf_values[near ^ LEAF, v] if near_is_leaf else 0.0
                        far_value = trees.leaf_values[far ^ LEAF, v] if far_is_leaf else 0.0
                        values[n, player, c] += near_value * near_own - far_value * far_own
                        to_a = near_value * near_a + far_value * far_a
                        to_b = near_value * near_b + far_value * far_b
                        members = A
                        while members != ZERO:
                            values[n, on_path[_lowest(members)], c] += to_a
                            members &= members - ONE
                        members = B
                        while members != ZERO:
                            values[n, on_path[_lowest(members)], c] -= to_b
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
