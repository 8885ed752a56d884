"""Merkle trees of RFC 6962, section 2: appending, roots, and the two kinds of proof.

Everything is made of the roots of perfect subtrees: node (height, index) covers the leaves
[index * 2^height, (index + 1) * 2^height).
"""

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import NamedTuple

LEVEL_HEIGHT = 8
"""Every eighth height is a level: its nodes are stored, level 0 being the leaves."""

EMPTY_ROOT = sha256(b"").digest()

NodeAt = Callable[[int, int], bytes]
"""The hash of node (height, index), which lies within the tree."""


class StoredNode(NamedTuple):
    """A node at height LEVEL_HEIGHT * level, level >= 1."""

    level: int
    number: int
    hash: bytes


def leaf_hash(data: bytes) -> bytes:
    """Of an entry."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class CompactRange:
    """A tree of `size` leaves as the roots of the perfect subtrees it consists of: all that
    appending needs, at most 63 hashes.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """peaks: largest subtree first, one for each 1 in the binary size; else ValueError."""
        self._peaks = list(peaks)
        self.size = size
        if len(self._peaks) != size.bit_count():
            raise ValueError(f"{len(self._peaks)} subtrees cannot make a tree of {size} leaves")

    def copy(self) -> "CompactRange":
        """One that is extended independently."""
        return CompactRange(self.size, self._peaks)

    def extend(self, leaves: Iterable[bytes]) -> list[StoredNode]:
        """Append leaf hashes; the nodes to store that this completes. Cost: 1 us a leaf."""
        peaks, completed = self._peaks, []
        for leaf in leaves:
            index, height, node = self.size, 0, leaf
            while index & 1:
                node = node_hash(peaks.pop(), node)
                index >>= 1
                height += 1
                if height % LEVEL_HEIGHT == 0:
                    completed.append(StoredNode(height // LEVEL_HEIGHT, index, node))
            peaks.append(node)
            self.size += 1
        return completed

    def root(self) -> bytes:
        """The tree's hash."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def peaks_of(node_at: NodeAt, size: int) -> list[bytes]:
    """The perfect subtrees a tree of that many leaves consists of, largest first."""
    heights = [height for height in reversed(range(size.bit_length())) if size >> height & 1]
    return [node_at(height, (size >> height) - 1) for height in heights]


def root_of(node_at: NodeAt, size: int) -> bytes:
    """The hash of the tree of the first `size` leaves."""
    return CompactRange(size, peaks_of(node_at, size)).root()


def inclusion_path(node_at: NodeAt, seq: int, size: int) -> tuple[bytes, ...]:
    """PATH(seq, D[size]) of section 2.1.1: from the leaf up, at most log2(size) + 1 hashes.

    ValueError unless 0 <= seq < size.
    """
    if not 0 <= seq < size:
        raise ValueError(f"entry {seq} is not in a tree of {size}")
    path, start, stop = [], 0, size
    while stop - start > 1:
        middle = start + _left_size(stop - start)
        if seq < middle:
            path.append(_subtree(node_at, middle, stop))
            stop = middle
        else:
            path.append(_subtree(node_at, start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_path(node_at: NodeAt, old_size: int, size: int) -> tuple[bytes, ...]:
    """PROOF(old_size, D[size]) of section 2.1.2; nothing is needed from an empty or equal tree.

    ValueError unless 0 <= old_size <= size.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a tree of {size} cannot have grown from one of {old_size}")
    if old_size in (0, size):
        return ()
    path, start, stop = [], 0, size
    while old_size != stop:
        middle = start + _left_size(stop - start)
        if old_size <= middle:
            path.append(_subtree(node_at, middle, stop))
            stop = middle
        else:
            path.append(_subtree(node_at, start, middle))
            start = middle
    if start:  # else it is the old root itself, which the verifier has
        path.append(_subtree(node_at, start, stop))
    return tuple(reversed(path))


def _left_size(size: int) -> int:
    """The largest power of two below size, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _subtree(node_at: NodeAt, start: int, stop: int) -> bytes:
    """MTH(D[start:stop]), where start is a multiple of the power of two at or above the size."""
    size = stop - start
    height = size.bit_length() - 1
    if size == 1 << height:
        return node_at(height, start >> height)
    middle = start + (1 << height)
    return node_hash(node_at(height, start >> height), _subtree(node_at, middle, stop))
