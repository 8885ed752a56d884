"""The stored inner nodes of a log's tree, compared with those its leaves make."""

from collections.abc import Callable

from sqlalchemy import select

from service.evidence import EvidenceStore
from service.evidence.tables import tree_nodes
from service.verify import node_hash

_TILE = 256
Report = Callable[[int | None, str], None]


class NodeCheck:
    """Takes the leaves in their order; memory: 256 hashes for each level of the tree."""

    def __init__(self, store: EvidenceStore, log: str, report: Report) -> None:
        self._store = store
        self._log = log
        self._report = report
        self._open: list[list[bytes]] = []
        self._numbers: list[int] = []

    def append(self, node: bytes, level: int = 0) -> None:
        """The next node of a level; level 0 are the leaves."""
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
        self.append(nodes[0], level + 1)

    def _compare(self, level: int, number: int, node: bytes) -> None:
        stored = select(tree_nodes.c.hash).where(
            tree_nodes.c.log == self._log,
            tree_nodes.c.level == level,
            tree_nodes.c.number == number,
        )
        with self._store.reading() as connection:
            found = [bytes(each) for each in connection.scalars(stored)]
        if found != [node]:
            first, size = number * _TILE**level, _TILE**level
            problem = f"the stored node over entries {first} to {first + size - 1} is not theirs"
            self._report(first, problem)
