"""Ways to misread a tree model, one rule at a time: tests prove that each of them shows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from explainers.tree.ensemble import TreeEnsemble

Misreading = Callable[[TreeEnsemble], TreeEnsemble]


def strict_comparison(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, threshold=np.nextafter(ensemble.threshold, -np.inf))


def strict_float32_comparison(ensemble: TreeEnsemble) -> TreeEnsemble:
    """One float64 step below a float32 number holds no float32 number: take a float32 step."""
    with np.errstate(over="ignore"):
        steps = np.nextafter(ensemble.threshold.astype(np.float32), np.float32(-np.inf))
    return replace(ensemble, threshold=steps.astype(np.float64))


def lax_comparison(ensemble: TreeEnsemble) -> TreeEnsemble:
    steps = np.nextafter(ensemble.threshold.astype(np.float32), np.float32(np.inf))
    return replace(ensemble, threshold=steps.astype(np.float64))


def other_cast(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, float32_inputs=not ensemble.float32_inputs)


def swapped_sides(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, left=ensemble.right, right=ensemble.left)


def other_missing_direction(ensemble: TreeEnsemble) -> TreeEnsemble:
    numeric = (ensemble.left >= 0) & ~ensemble.is_category
    return replace(ensemble, missing_left=ensemble.missing_left ^ numeric)


def missing_to_the_right(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, missing_left=np.zeros_like(ensemble.missing_left))


def other_missing_direction_of_categories(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, missing_left=ensemble.missing_left ^ ensemble.is_category)


def other_out_of_range_direction(ensemble: TreeEnsemble) -> TreeEnsemble:
    """Codes inside the words keep their side, all others change it."""
    return replace(
        ensemble,
        category_bits=~ensemble.category_bits,
        member_left=ensemble.member_left ^ ensemble.is_category,
    )


def swapped_members(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, member_left=ensemble.member_left ^ ensemble.is_category)


def nan_stays_missing(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, nan_is_zero=np.zeros_like(ensemble.nan_is_zero))


def zero_is_a_number(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, zero_is_missing=np.zeros_like(ensemble.zero_is_missing))


def zero_is_missing_too(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, zero_is_missing=ensemble.left >= 0)


def no_base(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, base=np.zeros_like(ensemble.base))


def one_base_for_all(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, base=np.full_like(ensemble.base, ensemble.base[0]))


def trees_of_another_output(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, tree_output=(ensemble.tree_output + 1) % np.int32(ensemble.n_outputs))


def outputs_in_another_order(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, leaf_values=np.roll(ensemble.leaf_values, 1, axis=1))


def undivided(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, divisor=1.0)


def one_tree_less(ensemble: TreeEnsemble) -> TreeEnsemble:
    return replace(ensemble, roots=ensemble.roots[:-1], tree_output=ensemble.tree_output[:-1])
