"""Which versions and how many rows can be explained by a method asked for by name."""

from pathlib import Path

import pytest

from service.methods import MOST_PAIRS, refusal
from service.registry import Registry
from service.registry.described import KnownVersion, describe_version

MOST = MOST_PAIRS // 30**2


@pytest.fixture(scope="module")
def version(demo_registry: Path) -> KnownVersion:
    """Of 30 columns and one output."""
    return describe_version(Registry(demo_registry).layout, "breast_cancer", 1)


def test_pairs_are_bounded_and_values_are_not(version: KnownVersion) -> None:
    assert refusal(version, "interactions", MOST) is None
    assert f"at most {MOST} instances" in str(refusal(version, "interactions", MOST + 1))
    for method in (None, "permutation", "kernel", "lime"):
        assert refusal(version, method, 10 * MOST) is None  # type: ignore[arg-type]


def test_what_a_model_cannot_be_asked_is_said(version: KnownVersion) -> None:
    assert "at most 12 columns" in str(refusal(version, "exact", 1))
    assert "torch" in str(refusal(version, "integrated_gradients", 1))
