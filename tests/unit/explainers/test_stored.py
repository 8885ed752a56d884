import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from random_ensembles import random_rows, random_trees

from explainers.base import (
    Background,
    ExplainerError,
    FloatArray,
    IdentityDerivation,
    MalformedModelError,
    Naming,
    OutdatedTablesError,
)
from explainers.tree import kernel, stored
from explainers.tree.build import EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TABLE_BYTES, TreeExplainer
from explainers.tree.stored import pack, unpack

KINDS: dict[str, dict[str, Any]] = {
    "narrow": {"n_columns": 12, "depth": 6},
    "joined conditions": {"n_columns": 3, "depth": 10, "n_trees": 2},
    "wide": {"n_columns": 40, "depth": 10, "n_trees": 2},
    "an output a tree": {"n_outputs": 3, "depth": 7},
    "leaf vectors": {"n_outputs": 3, "vector_leaves": True, "divisor": 4.0, "depth": 6},
    "wide leaf vectors": {
        "n_outputs": 2, "vector_leaves": True, "n_columns": 40, "depth": 10, "n_trees": 1,
    },
    "leaves alone": {"depth": 0},
}  # fmt: skip


def explainer_of(
    ensemble: TreeEnsemble,
    background: FloatArray,
    tables: bytes | None = None,
    *,
    table_bytes: int = TABLE_BYTES,
) -> TreeExplainer:
    return TreeExplainer(
        ensemble,
        Background.of(background),
        IdentityDerivation.over(ensemble.n_columns),
        naming=Naming(
            tuple(f"f{i}" for i in range(background.shape[1])),
            tuple(f"o{c}" for c in range(ensemble.n_outputs)),
            "raw",
        ),
        tolerance=1e-9,
        table_bytes=table_bytes,
        stored_tables=tables,
    )


def tables_of(explainer: TreeExplainer) -> bytes:
    data = explainer.stored_tables()
    assert data is not None
    return data


def repacked(explainer: TreeExplainer, **changes: Any) -> bytes:
    """The bytes of the explainer's tables with some of their fields changed."""
    compiled = explainer._compiled
    assert compiled is not None
    kept = changes.pop("kept", compiled.kept)
    changed = replace(compiled, kept=kept, tables=compiled.tables._replace(**changes))
    return pack(changed, explainer._trees, explainer._reference, max_bytes=TABLE_BYTES)


def unpacked(explainer: TreeExplainer, data: bytes) -> kernel.Tables:
    trees, reference = explainer._trees, explainer._reference
    return unpack(data, trees, reference, max_bytes=TABLE_BYTES).tables


@pytest.fixture(scope="module")
def both_widths() -> TreeExplainer:
    """Narrow and wide pieces, and joined conditions, under leaf vectors of two."""
    ensemble = random_trees(1, n_columns=24, depth=11, n_trees=1, n_outputs=2, vector_leaves=True)
    explainer = explainer_of(ensemble, random_rows(1, (30, 24)))
    assert explainer._compiled is not None
    tables = explainer._compiled.tables
    assert min(len(part) for part in tables if isinstance(part, np.ndarray)) > 1
    return explainer


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_stored_tables_explain_as_those_just_compiled_to_the_bit(
    seed: int, options: dict[str, Any]
) -> None:
    ensemble = random_trees(seed, **options)
    background = random_rows(seed + 1, (70, ensemble.n_columns))
    X = random_rows(seed + 2, (40, ensemble.n_columns))
    fresh = explainer_of(ensemble, background)
    data = tables_of(fresh)
    restored = explainer_of(ensemble, background, data)
    assert restored.explain(X).values.tobytes() == fresh.explain(X).values.tobytes()
    assert restored.explain(X).base_values.tobytes() == fresh.explain(X).base_values.tobytes()
    assert (restored.engine, restored.tolerance) == (fresh.engine, fresh.tolerance)
    assert restored.table_bytes == fresh.table_bytes
    assert restored.stored_tables() == data


def test_trees_without_a_table_are_walked_as_before() -> None:
    ensemble = random_trees(5, n_trees=30, n_columns=30, depth=7)
    background, X = random_rows(1, (20, 30)), random_rows(2, (20, 30))
    limit = explainer_of(ensemble, background).table_bytes // 2
    fresh = explainer_of(ensemble, background, table_bytes=limit)
    assert fresh.engine == "walk"
    assert fresh.table_bytes > 0
    restored = explainer_of(ensemble, background, tables_of(fresh), table_bytes=limit)
    assert restored.engine == "walk"
    assert restored.explain(X).values.tobytes() == fresh.explain(X).values.tobytes()
    with pytest.raises(OutdatedTablesError):
        explainer_of(ensemble, background, tables_of(fresh))


def test_nothing_is_stored_where_every_tree_is_walked() -> None:
    explainer = explainer_of(random_trees(0), random_rows(0, (5, 5)), table_bytes=0)
    assert (explainer.engine, explainer.stored_tables()) == ("walk", None)


def test_restored_arrays_are_those_the_kernel_was_compiled_for(both_widths: TreeExplainer) -> None:
    both_widths.explain(random_rows(2, (3, 24)))
    assert both_widths._compiled is not None
    restored = unpacked(both_widths, tables_of(both_widths))
    for part, before in zip(restored, both_widths._compiled.tables, strict=True):
        assert type(part) is type(before)
        if isinstance(before, np.ndarray):
            assert (part.dtype, part.shape) == (before.dtype, before.shape)
            assert part.flags.c_contiguous
            assert part.flags.writeable
            assert part.tobytes() == before.tobytes()
    assert restored.rows.ctypes.data % 64 == restored.wide.ctypes.data % 64 == 0
    both_widths._trees.looked_up(random_rows(2, (3, 24)), restored)
    assert len(kernel.look_up.signatures) == 1


def test_tables_that_come_out_otherwise_need_another_format() -> None:
    """Whoever changes the digest raises FORMAT too, or old tables would pass for new ones."""
    levels, inner = 4, 2**4 - 1
    node = np.arange(2 * inner + 1)
    builder = EnsembleBuilder(3, base=[0.0])
    builder.add_tree(
        TreeNodes(
            left=np.where(node < inner, 2 * node + 1, -1),
            right=np.where(node < inner, 2 * node + 2, -1),
            column=np.where(node < inner, np.log2(node + 1).astype(int) % 3, -1),
            threshold=node % levels / levels,
            leaf_values=node * (node >= inner) / 7,
        )
    )
    background = np.column_stack([np.arange(9) % n / n for n in (2, 3, 5)])
    data = tables_of(explainer_of(builder.build(), background))
    found = hashlib.sha256(data).hexdigest()[:16]
    assert (stored.FORMAT, found) == (1, "8e56af98f9fd1531")


def test_tables_of_another_format_are_outdated(
    both_widths: TreeExplainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tables_of(both_widths)
    monkeypatch.setattr(stored, "FORMAT", stored.FORMAT + 1)
    with pytest.raises(OutdatedTablesError, match="not of format 2"):
        unpacked(both_widths, data)


def test_tables_of_another_model_or_background_are_outdated() -> None:
    ensemble, background = random_trees(1, depth=5), random_rows(1, (20, 5))
    data = tables_of(explainer_of(ensemble, background))
    leaves = ensemble.leaf_values.copy()
    leaves[np.flatnonzero(ensemble.left < 0)[0]] += 1e-9
    inner = np.flatnonzero(ensemble.left >= 0)[0]
    columns = ensemble.column.copy()
    columns[inner] = (columns[inner] + 1) % 5
    swapped = background.copy()
    swapped[0] = random_rows(3, (1, 5))
    others = [
        (replace(ensemble, leaf_values=leaves), background),
        (replace(ensemble, column=columns), background),
        (ensemble, swapped),
        (ensemble, background[1:]),
        (ensemble, np.tile(background, (2, 1))),
    ]
    explainer_of(ensemble, background, data)
    for trees, rows in others:
        with pytest.raises(OutdatedTablesError, match="other trees or another background"):
            explainer_of(trees, rows, data)


OUT_OF_RANGE: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("bit_sources", "bit_sources", lambda array: last(array, array.max() + 9)),
    ("bit_flips", "bit_flips", lambda array: last(array, 2)),
    ("bit_flips", "bit_flips", lambda array: array[:-1]),
    ("piece_bits", "piece_bits", lambda array: last(array, 1 << 15)),
    ("piece_bits", "piece_bits", lambda array: array[:-1]),
    ("piece_targets", "piece_targets", lambda array: last(array, 25 * 2 - 1)),
    ("piece_targets", "piece_targets", lambda array: array[:-1]),
    ("piece_starts", "piece_starts", lambda array: last(array, array[-1] + 1)),
    ("piece_starts", "piece_starts", lambda array: last(array, (1 << 32) - 1)),
    ("piece_starts", "rows", lambda array: array[:-1]),
    ("wide_bits", "wide_bits", lambda array: last(array, 1 << 15)),
    ("wide_bit_stops", "wide_bit_stops", lambda array: last(array, array[-1] + 1)),
    ("wide_bit_stops", "wide_bit_stops", lambda array: last(array, 0)),
    ("wide_bit_stops", "wide_bits", lambda array: np.append(array, array[:1])),
    ("wide_targets", "wide_targets", lambda array: last(array, 25 * 2 - 1)),
    ("wide_target_stops", "wide_target_stops", lambda array: last(array, array[-1] + 1)),
    ("wide_target_stops", "wide_target_stops", lambda array: array[:-1]),
    ("wide_starts", "wide_starts", lambda array: last(array, array[-1] + 1)),
    ("wide_starts", "wide_starts", lambda array: last(array, (1 << 64) - 1)),
    ("wide_starts", "wide", lambda array: array[:-1]),
    ("width", "width", lambda _: 1),
    ("width", "width", lambda _: -1),
    ("width", "width", lambda _: 2.0),
    ("scale", "scale", lambda _: 1),
    ("rows", "rows", lambda array: array.astype(np.float64)),
    ("rows", "rows", lambda array: array.ravel()),
    ("wide", "wide", lambda array: array[:, None]),
    ("bit_sources", "bit_sources", lambda array: array[:, :1]),
    ("trees", "kept", lambda _: np.ones(3, dtype=np.bool_)),
    ("trees", "kept", lambda array: array.astype(np.int64)),
]
"""The field the error names, the field that is changed, and how."""


def last(array: np.ndarray, number: int) -> np.ndarray:
    changed = array.copy()
    changed[-1] = number
    return changed


@pytest.mark.parametrize(("named", "field", "change"), OUT_OF_RANGE)
def test_tables_that_would_lead_a_kernel_outside_are_refused(
    named: str, field: str, change: Callable[[Any], Any], both_widths: TreeExplainer
) -> None:
    compiled = both_widths._compiled
    assert compiled is not None
    before = compiled.kept if field == "kept" else getattr(compiled.tables, field)
    with pytest.raises(MalformedModelError, match=f"^{named} of the stored tables"):
        unpacked(both_widths, repacked(both_widths, **{field: change(before)}))


def test_further_bits_are_made_of_bits_before_them(both_widths: TreeExplainer) -> None:
    assert both_widths._compiled is not None
    sources = both_widths._compiled.tables.bit_sources
    own = len(both_widths._trees.decisions.thresholds) + len(sources)
    unpacked(both_widths, repacked(both_widths, bit_sources=last(sources, own - 1)))
    with pytest.raises(MalformedModelError, match="bit_sources"):
        unpacked(both_widths, repacked(both_widths, bit_sources=last(sources, own)))


def test_wide_tables_where_there_are_none_are_refused() -> None:
    explainer = explainer_of(random_trees(0, depth=3), random_rows(1, (9, 5)))
    bits = np.zeros(2, dtype=np.uint16)
    with pytest.raises(MalformedModelError, match="wide_bit_stops"):
        unpacked(explainer, repacked(explainer, wide_bits=bits))


def test_bytes_cut_short_or_gone_on_are_refused(both_widths: TreeExplainer) -> None:
    data = tables_of(both_widths)
    lengths = np.random.default_rng(0).integers(2000, len(data), 20).tolist()
    for length in [*range(0, 2000, 7), *lengths, len(data) - 1]:
        with pytest.raises(MalformedModelError, match="cannot be read"):
            unpacked(both_widths, data[:length])
    with pytest.raises(MalformedModelError, match="cannot be read"):
        unpacked(both_widths, data + data[:200])


def npy(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 no archive either",
        pickle.dumps(1),
        npy(np.array([1], dtype=object), allow_pickle=True),
        npy(np.asfortranarray(np.ones((2, 2)))),
        npy(np.array(1), version=(2, 0)),
        npy(np.array(1)).replace(b"()", b"(1 << 60,)"),
        npy(np.array(1)).replace(b"'shape': ()", b"'shape': (9999999999999,)"),
        npy(np.array(1)).replace(b"()", b"(99999999999999999999,)"),
        npy(np.array(1)).replace(b"{", b"(").replace(b"}", b"["),
    ],
)
def test_bytes_that_are_no_arrays_of_numbers_are_refused(
    data: bytes, both_widths: TreeExplainer
) -> None:
    with pytest.raises(MalformedModelError, match="cannot be read"):
        unpacked(both_widths, data)


def test_a_flipped_bit_is_refused_or_harmless() -> None:
    ensemble = random_trees(0, n_columns=4, depth=5, n_trees=3)
    background, X = random_rows(1, (9, 4)), random_rows(2, (20, 4))
    data = tables_of(explainer_of(ensemble, background))
    rng = np.random.default_rng(0)
    refused = 0
    places = rng.integers(0, data.index(b"<f4"), 1000)
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            explainer_of(ensemble, background, bytes(damaged)).explain(X)
        except ExplainerError:
            refused += 1
    assert refused > len(places) // 4
