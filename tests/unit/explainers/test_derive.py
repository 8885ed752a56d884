from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from known_steps import COLUMNS, KNOWN_STEPS, NUMBERS, REACH, TEXT, coded_rows, fitted, one_hot
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from explainers.base import FloatArray, RawColumns
from explainers.compiled import Levels, Numbers, Plan
from explainers.derive import CompiledDerivation, compiled, is_proven, is_same, proof_rows
from explainers.preprocess import PipelineDerivation, Reach

N_HARD_ROWS = 1200
NO_SPECIALS = Reach(missing=(False,) * 5, unseen=(False,) * 5)
ONLY_KNOWN = {"an encoder behind an encoder"}
UNKNOWN = {"unknown kind over one column"}
COMPILED = [kind for kind in KNOWN_STEPS if kind not in UNKNOWN]


def reach_of(kind: str) -> Reach:
    return NO_SPECIALS if kind in ONLY_KNOWN else REACH


def hard_rows(reach: Reach, seed: int = 1) -> FloatArray:
    """Cells of real rows in new company, many a hair beside or far outside, missing and unseen."""
    rng = np.random.default_rng(seed)
    known = np.where(np.isnan(coded_rows()), 1.0, coded_rows())
    rows = np.take_along_axis(known, rng.integers(len(known), size=(N_HARD_ROWS, 5)), axis=0)
    numbers = rows[:, :2]
    numbers[rng.random(numbers.shape) < 0.2] *= -1.0
    far = rng.random(numbers.shape) < 0.2
    numbers[far] *= 10.0 ** rng.integers(-300, 290, numbers.shape)[far]
    numbers[rng.random(numbers.shape) < 0.05] = -0.0
    nudged = rng.random(numbers.shape) < 0.2
    numbers[nudged] = np.nextafter(numbers[nudged], np.inf)
    for column in range(5):
        if reach.missing[column]:
            rows[rng.random(len(rows)) < 0.15, column] = np.nan
        if reach.unseen[column]:
            rows[rng.random(len(rows)) < 0.15, column] = -1.0
    return rows


def compile_steps(steps: Any, reach: Reach = REACH, *, absent: float = 0.0) -> CompiledDerivation:
    derivation = compiled(PipelineDerivation(fitted(steps), COLUMNS, absent=absent), COLUMNS, reach)
    assert derivation is not None
    return derivation


def assert_same_bits(derivation: CompiledDerivation, rows: FloatArray, *, most: float) -> None:
    """The plan answers for that share of the rows or more, with the pipeline's bits."""
    accepted = rows[derivation.plan.accepts(rows)]
    assert len(accepted) >= most * len(rows)
    derived = derivation.plan(accepted)
    assert derived is not None
    assert is_same(derived, derivation.pipeline(accepted))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", COMPILED)
def test_compiled_rows_are_the_pipelines_to_the_bit(kind: str) -> None:
    reach = reach_of(kind)
    derivation = compile_steps(KNOWN_STEPS[kind][0], reach)
    assert derivation.players is derivation.pipeline.players
    assert_same_bits(derivation, hard_rows(reach), most=0.95)


NUMERIC_STEPS = [
    SimpleImputer(add_indicator=True),
    SimpleImputer(strategy="constant", fill_value=-7.5),
    SimpleImputer(strategy="median", keep_empty_features=True),
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler((-1, 3)),
    MinMaxScaler(clip=True),
    RobustScaler(),
    RobustScaler(with_centering=False),
    MaxAbsScaler(clip=True),
    FunctionTransformer(np.arctan),
    FunctionTransformer(np.cbrt),
    make_union(StandardScaler(), MissingIndicator(features="all")),
    KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    VarianceThreshold(),
    "passthrough",
]
LEVEL_STEPS = [
    OneHotEncoder(handle_unknown="ignore"),
    OneHotEncoder(handle_unknown="ignore", drop="first", sparse_output=False),
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.3),
    OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-5
    ),
    make_pipeline(SimpleImputer(strategy="most_frequent"), TargetEncoder(cv=2)),
    make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), one_hot()),
]


def random_steps(rng: np.random.Generator) -> Any:
    def pick(menu: Sequence[Any]) -> Any:
        return menu[int(rng.integers(len(menu)))]

    chain = make_pipeline(*(pick(NUMERIC_STEPS) for _ in range(rng.integers(1, 5))))
    parts = [
        ("numbers", make_pipeline(SimpleImputer(), chain), NUMBERS),
        ("one number", make_pipeline(pick(NUMERIC_STEPS[:3]), pick(NUMERIC_STEPS)), ["texture"]),
        ("text", pick(LEVEL_STEPS), TEXT),
        ("grade", pick(["passthrough", "drop", StandardScaler(), one_hot()]), ["grade"]),
    ]
    order = rng.permutation(len(parts))
    steps = ColumnTransformer(
        [parts[i] for i in order],
        remainder=pick(["drop", "passthrough"]),
        sparse_threshold=pick([0.0, 1.0]),
    )
    return make_pipeline(steps, pick(["passthrough", make_union("passthrough", "passthrough")]))


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("seed", range(40))
def test_random_combinations_are_the_pipelines_to_the_bit(seed: int) -> None:
    derivation = compile_steps(
        random_steps(np.random.default_rng(seed)), absent=np.nan if seed % 2 else 0.0
    )
    assert_same_bits(derivation, hard_rows(REACH, seed), most=0.5)


@pytest.mark.parametrize("kind", COMPILED)
def test_a_row_derives_to_the_same_bits_alone_in_a_batch_and_in_threads(kind: str) -> None:
    plan = compile_steps(KNOWN_STEPS[kind][0], reach_of(kind)).plan
    rows = hard_rows(reach_of(kind))[:300]
    rows = rows[plan.accepts(rows)]
    batch = plan(rows)
    assert batch is not None
    alone = [plan(row[None, :]) for row in rows]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(plan, [row[None, :] for row in rows]))
    for derived in (alone, threaded):
        assert is_same(np.vstack([row for row in derived if row is not None]), batch)


@pytest.mark.parametrize(
    "steps",
    [
        PolynomialFeatures(3),
        QuantileTransformer(n_quantiles=20),
        PowerTransformer("box-cox"),
        FunctionTransformer(np.isnan),
        FunctionTransformer(np.nan_to_num, feature_names_out="one-to-one"),
        SimpleImputer(missing_values=1.0),
        OneHotEncoder(handle_unknown="ignore"),
    ],
    ids=lambda step: type(step).__name__,
)
def test_numbers_in_steps_that_are_not_known_stay_with_the_pipeline(steps: Any) -> None:
    whole = make_pipeline(SimpleImputer(), steps)
    pipeline = PipelineDerivation(
        fitted(make_column_transformer((whole, ["radius"]), (one_hot(), TEXT))), COLUMNS
    )
    assert pipeline.trace.chains[0] is None
    assert compiled(pipeline, COLUMNS, REACH) is None


def test_levels_in_steps_that_are_not_known_are_still_compiled() -> None:
    steps = make_pipeline(SimpleImputer(), PolynomialFeatures(3), PowerTransformer())
    derivation = compile_steps(make_column_transformer((steps, ["grade"])), NO_SPECIALS)
    assert_same_bits(derivation, hard_rows(NO_SPECIALS), most=1.0)


def test_scaled_sparse_rows_stay_with_the_pipeline() -> None:
    # The library multiplies them by the inverse of the scale, where it divides dense ones.
    inner = make_column_transformer(
        (one_hot(), TEXT), (SimpleImputer(), NUMBERS), sparse_threshold=1.0
    )
    steps = fitted(make_pipeline(inner, StandardScaler(with_mean=False)))
    assert compiled(PipelineDerivation(steps, COLUMNS), COLUMNS, REACH) is None


def test_weighted_columns_stay_with_the_pipeline() -> None:
    weighted = ColumnTransformer(
        [("numbers", SimpleImputer(), NUMBERS), ("text", one_hot(), TEXT)],
        transformer_weights={"numbers": 3.0},
    )
    assert compiled(PipelineDerivation(fitted(weighted), COLUMNS), COLUMNS, REACH) is None


def test_columns_of_too_many_levels_stay_with_the_pipeline() -> None:
    names = tuple(f"level {index}" for index in range(2100))
    steps = one_hot().fit(pd.DataFrame({"name": names}))
    columns = RawColumns(("name",), (names,))
    reach = Reach(missing=(False,), unseen=(True,))
    assert compiled(PipelineDerivation(steps, columns), columns, reach) is None


def test_a_damaged_step_stays_with_the_pipeline() -> None:
    steps = fitted(make_column_transformer((StandardScaler(), NUMBERS)))
    steps.named_transformers_["standardscaler"].scale_ = np.ones(1)
    pipeline = PipelineDerivation(steps, COLUMNS)
    assert pipeline.trace.chains[1] is None
    assert compiled(pipeline, COLUMNS, REACH) is None


def first_kind() -> CompiledDerivation:
    return compile_steps(next(iter(KNOWN_STEPS.values()))[0])


def scaled_by_a_hair(plan: Plan) -> Plan:
    numbers = next(part for part in plan.numbers if np.divide in part.functions)
    operands = [
        tuple(np.nextafter(operand, np.inf) for operand in each) if function is np.divide else each
        for function, each in zip(numbers.functions, numbers.operands, strict=True)
    ]
    return with_numbers(plan, numbers, replace(numbers, operands=tuple(operands)))


def other_statistic(plan: Plan) -> Plan:
    numbers = plan.numbers[0]
    first = tuple(operand + 1e-9 for operand in numbers.operands[0])
    return with_numbers(plan, numbers, replace(numbers, operands=(first, *numbers.operands[1:])))


def other_column(plan: Plan) -> Plan:
    numbers = plan.numbers[0]
    return with_numbers(plan, numbers, replace(numbers, sources=numbers.sources[::-1]))


def with_numbers(plan: Plan, old: Numbers, new: Numbers) -> Plan:
    return replace(plan, numbers=tuple(new if part is old else part for part in plan.numbers))


def with_levels(plan: Plan, **changes: Any) -> Plan:
    assert isinstance(plan.levels, Levels)
    return replace(plan, levels=replace(plan.levels, **changes))


def shifted_codes(plan: Plan) -> Plan:
    assert plan.levels is not None
    return with_levels(plan, starts=plan.levels.starts - 1)


def one_wrong_cell(plan: Plan) -> Plan:
    assert plan.levels is not None
    cells = plan.levels.cells.copy()
    cells[0] = 1.0
    return with_levels(plan, cells=cells)


def swapped_columns(plan: Plan) -> Plan:
    order = plan.order.copy()
    order[[0, 1]] = order[[1, 0]]
    return replace(plan, order=order)


def absent_zeros(plan: Plan) -> Plan:
    return replace(plan, absent=np.nan)


WRONG = [
    scaled_by_a_hair,
    other_statistic,
    other_column,
    shifted_codes,
    one_wrong_cell,
    swapped_columns,
    absent_zeros,
]


@pytest.mark.parametrize("damage", WRONG, ids=lambda damage: damage.__name__)
def test_a_wrong_plan_is_not_proven(damage: Any) -> None:
    derivation = first_kind()
    rows = proof_rows(derivation.pipeline.trace, COLUMNS, REACH)
    assert is_proven(derivation.plan, derivation.pipeline, rows)
    assert derivation.agrees(coded_rows())
    wrong = damage(derivation.plan)
    assert not is_proven(wrong, derivation.pipeline, rows)
    assert not CompiledDerivation(wrong, derivation.pipeline).agrees(rows)


def test_a_plan_that_answers_for_few_rows_is_not_proven() -> None:
    derivation = first_kind()
    rows = proof_rows(derivation.pipeline.trace, COLUMNS, REACH)
    assert not is_proven(derivation.plan, derivation.pipeline, rows[:50])


def test_rows_left_to_the_pipeline_contradict_nothing() -> None:
    derivation = compile_steps(make_column_transformer((one_hot(), TEXT)), NO_SPECIALS)
    assert derivation.agrees(np.full((3, 5), np.nan))


def test_steps_that_look_at_the_whole_batch_are_not_proven() -> None:
    derivation = first_kind()

    class Neighbourly:
        players = derivation.players

        def __call__(self, X: FloatArray) -> FloatArray:
            return derivation(X) + (len(X) == 1)

    rows = proof_rows(derivation.pipeline.trace, COLUMNS, REACH)
    assert not is_proven(derivation.plan, Neighbourly(), rows)


@pytest.mark.parametrize(
    ("column", "value"), [(2, np.nan), (2, -1.0), (2, 3.0), (3, np.nan), (1, np.nan)]
)
def test_what_the_model_does_not_take_is_left_to_the_pipeline(column: int, value: float) -> None:
    steps = make_column_transformer((OneHotEncoder(), [*TEXT, "grade"]), (MinMaxScaler(), NUMBERS))
    rows = np.nan_to_num(coded_rows())
    derivation = compiled(
        PipelineDerivation(steps.fit(frame_of(rows)), COLUMNS), COLUMNS, NO_SPECIALS
    )
    assert derivation is not None
    assert derivation.plan(rows) is not None
    rows[7, column] = value
    assert derivation.plan(rows) is None
    assert not derivation.plan.accepts(rows)[7]
    assert derivation.plan.accepts(rows).sum() == len(rows) - 1
    if column == 2:
        with pytest.raises((ValueError, IndexError)):
            derivation(rows)


def frame_of(rows: FloatArray) -> pd.DataFrame:
    from explainers.preprocess import decode_frame

    frame: pd.DataFrame = decode_frame(rows, COLUMNS)
    return frame


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("after", [MinMaxScaler(clip=True), FunctionTransformer(np.arctan), "bins"])
def test_an_infinite_value_on_the_way_is_left_to_the_pipeline(after: Any) -> None:
    if after == "bins":
        after = KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf")
    steps = make_pipeline(SimpleImputer(), FunctionTransformer(np.square), StandardScaler(), after)
    derivation = compile_steps(make_column_transformer((steps, NUMBERS)))
    row = np.array([[14.0, 1e200, 0.0, 0.0, 0.0]])
    assert derivation.plan(row) is None
    with pytest.raises(ValueError, match="infinity"):
        derivation(row)


def test_a_negative_zero_survives_dense_and_vanishes_sparse() -> None:
    row = np.array([[-0.0, 1.0, 0.0, 0.0, 0.0]])
    for threshold, is_negative in ((0.0, True), (1.0, False)):
        steps = make_column_transformer(
            ("passthrough", ["radius"]), (one_hot(), TEXT), sparse_threshold=threshold
        )
        derived = compile_steps(steps).plan(row)
        assert derived is not None
        assert bool(np.signbit(derived[0, 0])) == is_negative


def test_proof_rows_are_the_same_whenever_made() -> None:
    trace = first_kind().pipeline.trace
    rows = proof_rows(trace, COLUMNS, REACH)
    assert is_same(rows, proof_rows(trace, COLUMNS, REACH))
    for column, levels in enumerate(COLUMNS.levels):
        if levels is not None:
            assert set(range(len(levels))) <= set(rows[:, column])
        assert np.isnan(rows[:, column]).any() == REACH.missing[column]
        assert (-1.0 in rows[:, column]) or not REACH.unseen[column]


def test_selected_columns_after_a_union_keep_their_own_numbers() -> None:
    steps = make_pipeline(
        make_column_transformer((SimpleImputer(add_indicator=True), NUMBERS)),
        make_union(StandardScaler(), RobustScaler()),
        SelectKBest(k=4),
    )
    assert_same_bits(compile_steps(steps), hard_rows(REACH), most=0.95)


def test_both_zeros_differ_and_all_missing_values_are_alike() -> None:
    assert not is_same(np.array([0.0]), np.array([-0.0]))
    assert is_same(np.array([np.nan]), np.array([-np.nan]))
    assert not is_same(np.array([np.nan]), np.array([1.0]))
    assert not is_same(np.zeros(2), np.zeros(3))
