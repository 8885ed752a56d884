from hashlib import sha256

import merkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ledger.tree import (
    CompactRange,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    peaks_of,
    root_of,
)

# From the tests of Google's certificate-transparency.
LEAVES = [
    bytes.fromhex(each)
    for each in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A, B, C = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
)
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSIONS = {
    (0, 1): [],
    (0, 8): [A, B, C],
    (5, 8): [D, E, ROOTS[4]],
    (2, 3): [ROOTS[2]],
    (1, 5): [ROOTS[1], B, D],
}
CONSISTENCIES = {
    (1, 1): [],
    (1, 8): [A, B, C],
    (6, 8): [F, E, ROOTS[4]],
    (2, 5): [B, D],
}


def node_at_of(entries: list[bytes]):  # noqa: ANN201 - a plain reference, by definition
    def node_at(height: int, index: int) -> bytes:
        start, stop = index << height, (index + 1) << height
        assert stop <= len(entries), "a node outside the tree was asked for"
        return merkle.mth(entries[start:stop])

    return node_at


def tree_of(entries: list[bytes]) -> CompactRange:
    tree = CompactRange()
    tree.extend(leaf_hash(entry) for entry in entries)
    return tree


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert tree_of(LEAVES[:size]).root().hex() == ROOTS[size]
    assert merkle.mth(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("seq", "size"), INCLUSIONS)
def test_inclusion_is_proven_as_certificate_transparency_does(seq: int, size: int) -> None:
    found = inclusion_path(node_at_of(LEAVES[:size]), seq, size)
    assert [each.hex() for each in found] == INCLUSIONS[seq, size]


@pytest.mark.parametrize(("old", "size"), CONSISTENCIES)
def test_consistency_is_proven_as_certificate_transparency_does(old: int, size: int) -> None:
    found = consistency_path(node_at_of(LEAVES[:size]), old, size)
    assert [each.hex() for each in found] == CONSISTENCIES[old, size]


entries_of = st.integers(1, 130).map(
    lambda n: [n.to_bytes(2, "big") + bytes([i]) for i in range(n)]
)


@settings(deadline=None)
@given(entries_of, st.data())
def test_proofs_are_those_of_the_rfc_s_own_words(entries: list[bytes], data: st.DataObject) -> None:
    size = len(entries)
    seq, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    node_at = node_at_of(entries)
    path = inclusion_path(node_at, seq, size)
    assert list(path) == merkle.path(seq, entries)
    assert list(consistency_path(node_at, old, size)) == merkle.proof(old, entries)
    assert merkle.root_from_path(leaf_hash(entries[seq]), seq, size, list(path)) == merkle.mth(
        entries
    )
    assert len(path) <= (size - 1).bit_length()


@settings(deadline=None)
@given(st.lists(st.integers(0, 700), max_size=4))
def test_a_tree_grown_in_pieces_is_the_same_and_completes_each_stored_node_once(
    pieces: list[int],
) -> None:
    entries = [sha256(bytes([i % 256, i // 256])).digest() for i in range(sum(pieces))]
    tree, completed, start = CompactRange(), [], 0
    for piece in pieces:
        tree = tree.copy()
        completed += tree.extend(map(leaf_hash, entries[start : start + piece]))
        start += piece
    assert tree.size == len(entries)
    assert tree.root() == merkle.mth(entries)
    assert [(level, number) for level, number, _ in completed] == [
        (1, number) for number in range(len(entries) // 256)
    ]
    for _, number, node in completed:
        assert node == merkle.mth(entries[number * 256 : (number + 1) * 256])


def test_nodes_of_two_levels_are_completed_by_the_same_leaf() -> None:
    completed = CompactRange().extend(leaf_hash(b"") for _ in range(65536))
    assert [tuple(node[:2]) for node in completed[-2:]] == [(1, 255), (2, 0)]
    assert len(completed) == 257
    node = leaf_hash(b"")
    for _ in range(16):
        node = node_hash(node, node)
    assert completed[-1].hash == node


@given(entries_of)
@settings(deadline=None, max_examples=20)
def test_a_tree_is_restored_from_its_nodes(entries: list[bytes]) -> None:
    node_at, size = node_at_of(entries), len(entries)
    restored = CompactRange(size, peaks_of(node_at, size))
    assert restored.root() == root_of(node_at, size) == merkle.mth(entries)
    restored.extend([leaf_hash(b"more")])
    assert restored.root() == merkle.mth([*entries, b"more"])


def test_what_no_tree_can_prove_is_refused() -> None:
    node_at = node_at_of(LEAVES)
    for seq, size in ((8, 8), (-1, 8), (0, 0)):
        with pytest.raises(ValueError, match="is not in a tree"):
            inclusion_path(node_at, seq, size)
    for old, size in ((9, 8), (-1, 8)):
        with pytest.raises(ValueError, match="cannot have grown"):
            consistency_path(node_at, old, size)
    with pytest.raises(ValueError, match="cannot make a tree"):
        CompactRange(3, [b""])
    assert consistency_path(node_at, 0, 8) == ()
