"""Expressions over cells that are all there mean what Python's mean."""

from hypothesis import given, reject, settings
from hypothesis import strategies as st
from policies import CLASSIFIER, row

from service.policy.expressions import Expression

NUMBERS = st.one_of(
    st.sampled_from(["amount", "duration", "value", 'probability("bad")']),
    st.integers(-3, 3).map(str),
    st.floats(-3, 3, allow_nan=False).map(lambda number: f"{number:.2f}"),
)
SUMS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(
        "({0[0]} {0[1]} {0[2]})".format
    ),
    max_leaves=4,
)
COMPARISON = st.lists(SUMS, min_size=2, max_size=3).flatmap(
    lambda sides: st.lists(
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        min_size=len(sides) - 1,
        max_size=len(sides) - 1,
    ).map(lambda signs: " ".join(x for pair in zip(sides, [*signs, ""], strict=True) for x in pair))
)
TEXT = st.sampled_from(['status == "0DM"', 'branch != "north"', "is_owner", 'label() == "bad"'])
MEMBERSHIP = st.tuples(
    st.sampled_from(["amount", "duration"]),
    st.sampled_from(["in", "not in"]),
    st.lists(st.integers(-3, 3), min_size=1, max_size=3),
).map("{0[0]} {0[1]} {0[2]}".format)
CONDITION = st.recursive(
    st.one_of(COMPARISON, TEXT, MEMBERSHIP),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: f"({' and '.join(parts)})"),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: f"({' or '.join(parts)})"),
        inner.map("not ({})".format),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    text=CONDITION,
    amount=st.floats(-3, 3, allow_nan=False),
    duration=st.integers(-3, 3),
    bad=st.floats(0, 1, allow_nan=False),
    branch=st.sampled_from(["north", "south"]),
    is_owner=st.booleans(),
)
def test_a_condition_holds_where_it_does_in_python(
    text: str, amount: float, duration: int, bad: float, branch: str, *, is_owner: bool
) -> None:
    cells = {"amount": amount, "duration": duration, "branch": branch, "is_owner": is_owner}
    names = {
        **cells,
        "value": 7.0,
        "status": "0DM",
        "probability": lambda _: bad,
        "label": lambda: "bad" if bad > 1 - bad else "good",
    }
    try:
        expected = eval(text, {"__builtins__": {}}, names)  # noqa: S307 - our own text
    except (ZeroDivisionError, OverflowError):
        reject()
    condition = Expression.parse(text).condition(CLASSIFIER)
    assert bool(condition(row(**cells), [1 - bad, bad])) is bool(expected)
