"""The stored inner nodes of a log's tree, compared with those its leaves make."""

from sqlalchemy import select, type_coerce
from sqlalchemy.types import NullType

from service.evidence import EvidenceStore
from service.evidence.tables import tree_nodes
from service.verify import node_hash

_TILE = 256


class NodeCheck:
    """Takes the stored leaves in their order; memory: 256 hashes for each level of the tree.

    It compares no further than the first gap: what comes after that is all displaced.
    """

    def __init__(self, store: EvidenceStore, log: str) -> None:
        self._store = store
        self._log = log
        self.wrong: list[range] = []
        """Entries over which a stored node is another, or missing."""

        self._size = 0
        self._open: list[list[bytes]] = []
        self._numbers: list[int] = []

    def take(self, seq: int, leaf: bytes) -> None:
        """The leaf of the next entry."""
        if seq == self._size:
            self._size += 1
            self._append(leaf, 0)

    def _append(self, node: bytes, level: int) -> None:
        if level == len(self._open):
            self._open.append([])
            self._numbers.append(0)
        nodes = self._open[level]
        nodes.append(node)
        if len(nodes) < _TILE:
            return
        while len(nodes) > 1:
            nodes = [node_hash(a, b) for a, b in zip(nodes[::2], nodes[1::2], strict=True)]
        number = self._numbers[level]
        self._open[level], self._numbers[level] = [], number + 1
        self._compare(level + 1, number, nodes[0])
        self._append(nodes[0], level + 1)

    def _compare(self, level: int, number: int, node: bytes) -> None:
        stored = select(type_coerce(tree_nodes.c.hash, NullType())).where(
            tree_nodes.c.log == self._log,
            tree_nodes.c.level == level,
            tree_nodes.c.number == number,
        )
        with self._store.reading() as connection:
            found = list(connection.scalars(stored))
        if found != [node]:
            self.wrong.append(range(number * _TILE**level, (number + 1) * _TILE**level))
