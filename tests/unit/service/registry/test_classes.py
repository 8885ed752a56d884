import numpy as np
import pandas as pd
import pytest

from service.errors import InvalidInputError
from service.registry.classes import (
    check_mapping,
    class_indices,
    entropy,
    resolve_classes,
    survives_reading,
)

Labels = tuple[object, ...]


@pytest.mark.parametrize(
    ("stored", "given", "target", "classes"),
    [
        (None, None, [0, 1, 1], (0, 1)),
        (None, None, [0.0, 1.0], (0, 1)),
        (None, None, [2, 0], (0, 1, 2)),
        (None, ["good", "bad"], ["bad", "good"], ("good", "bad")),
        (None, ["0", "1"], [1, 0], (0, 1)),
        (None, ["0", "1"], [1.0, 0.0], (0, 1)),
        (None, ["0.0", "1.0"], [1.0, 0.0], (0.0, 1.0)),
        (None, ["False", "True"], [True, False], (False, True)),
        (("a", "b"), None, ["b", "a"], ("a", "b")),
        ((False, True), None, [True, False], (False, True)),
        ((0, 1), None, [True, False], (False, True)),
        (("a", "b"), ["bad", "good"], ["good", "bad"], ("bad", "good")),
    ],
)
def test_classes_are_stored_given_or_the_numbers_from_zero(
    stored: Labels | None, given: list[str] | None, target: list[object], classes: Labels
) -> None:
    found = resolve_classes(stored, given, pd.Series(target), len(classes))
    assert found == classes
    assert [type(label) for label in found] == [type(label) for label in classes]


@pytest.mark.parametrize(
    ("stored", "given", "target", "refusal"),
    [
        (None, None, ["good", "bad"], "--classes"),
        (None, None, [1, 2], r"not 0\.\.1"),
        (None, None, [True, False], "--classes"),
        (None, None, [0.0, 0.5], r"not 0\.\.1"),
        (None, None, [0.0, np.inf], r"not 0\.\.1"),
        (("a", "b"), None, [0, 1], "the model's classes are a,b"),
        ((1, 2), None, [True, False], "the model's classes are 1,2"),
        (("a", "b"), ["b", "a"], ["a", "b"], "stores its classes in the order a,b"),
        (None, ["good"], ["good", "bad"], "2 classes, --classes names 1"),
        (None, ["good", "good"], ["good", "bad"], "names a class twice"),
        (None, ["a", "b"], [pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01")], "Timestamp"),
    ],
)
def test_doubtful_classes_are_refused(
    stored: Labels | None, given: list[str] | None, target: list[object], refusal: str
) -> None:
    with pytest.raises(InvalidInputError, match=refusal):
        resolve_classes(stored, given, pd.Series(target), 2)


def test_class_indices_follow_the_order_of_the_outputs() -> None:
    target = pd.Series(["good", "bad", "good"], dtype="category")
    assert class_indices(("bad", "good"), target).tolist() == [1, 0, 1]


@pytest.mark.parametrize("target", [["good", "ugly"], [1, 0]])
def test_target_that_is_no_class_is_refused(target: list[object]) -> None:
    with pytest.raises(InvalidInputError, match=r"none of the classes good,bad in [12] rows"):
        class_indices(("good", "bad"), pd.Series(target))


def test_swapped_binary_classes_are_refused_with_the_better_order() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    assert check_mapping(scores, np.array([0, 1, 0]), ("good", "bad")) == pytest.approx(
        0.2284, 1e-3
    )
    with pytest.raises(
        InvalidInputError, match=r"with classes bad,good .* with good,bad it is 0\.2284"
    ):
        check_mapping(scores, np.array([1, 0, 1]), ("bad", "good"))


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (0, 2, 1)])
def test_every_permutation_of_three_classes_is_refused(order: tuple[int, ...]) -> None:
    scores = np.full((30, 3), 0.1)
    truth = np.arange(30) % 3
    scores[np.arange(30), truth] = 0.8
    names = np.array(["a", "b", "c"])
    assert check_mapping(scores, truth, ("a", "b", "c")) < 0.3
    given = tuple(names[list(order)].tolist())
    indices = np.array([given.index(names[k]) for k in truth])
    with pytest.raises(InvalidInputError, match="with a,b,c it is"):
        check_mapping(scores, indices, given)


def test_rotation_of_ten_classes_is_refused() -> None:
    scores = np.full((50, 10), 0.01)
    truth = np.arange(50) % 10
    scores[np.arange(50), truth] = 0.91
    with pytest.raises(InvalidInputError, match="the order is wrong"):
        check_mapping(scores, (truth + 1) % 10, tuple("abcdefghij"))


def test_model_that_tells_nothing_apart_passes_any_order() -> None:
    scores = np.full((4, 2), 0.5)
    assert check_mapping(scores, np.array([1, 0, 0, 1]), ("a", "b")) == pytest.approx(np.log(2))


def test_entropy_is_the_loss_of_the_classes_shares() -> None:
    assert entropy(np.array([0, 1, 1, 0])) == pytest.approx(np.log(2))
    assert entropy(np.array([1, 1])) == 0


@pytest.mark.parametrize(
    "names", [["0", "1"], ["-1", "0.5"], ["1.0", "2.0"], ["True", "False"], ["yes", "no"], []]
)
def test_names_that_a_number_or_boolean_is_written_as_survive_reading(names: list[str]) -> None:
    assert survives_reading(names)


@pytest.mark.parametrize("name", ["01", "1e3", "+1", "1.50", "nan", "inf", "TRUE", "false"])
def test_names_that_would_be_read_as_something_else_do_not_survive(name: str) -> None:
    assert not survives_reading(["yes", name])
