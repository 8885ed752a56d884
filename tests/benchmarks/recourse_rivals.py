"""Our cheapest counterfactual beside those of dice-ml, priced alike.

    uv pip install --target rivals --no-deps dice-ml raiutils
    PYTHONPATH=rivals EXPLAIND_TEST_DATA=... .venv/bin/python tests/benchmarks/recourse_rivals.py \
        [--applicants 20] [--method random|genetic]

dice-ml is not among the development tools: it depends on the distribution `xgboost`, whose modules
would replace those of `xgboost-cpu` and which brings 350 MB for graphics cards; it runs without.

German credit under the policy of docs/recourse.md. dice-ml gets the columns that may change, their
ranges for each applicant (which is how it can be told a direction), and four answers; what it finds
is rounded to whole numbers and counts if it reaches the target, though its amounts need not be
hundreds. Exit code 1 when it finds something cheaper.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from recourse import served_bank

from explainers.base import FloatArray
from explainers.counterfactual import Problem, search
from service.policy import Recourse
from service.served import ServedModel

sys.path.append(str(Path(__file__).parents[1] / "support"))

from tables import instances_of, larger_table

ANSWERS = 4


class Bank:
    """The served model as dice-ml calls models: frames in, probabilities out."""

    classes_ = np.array([0, 1])

    def __init__(self, served: ServedModel, columns: list[str], numbers: list[str]) -> None:
        self.served, self.columns, self.numbers = served, columns, numbers

    def rows(self, frame: pd.DataFrame) -> FloatArray:
        """(N, F) codes, numbers rounded."""
        import orjson

        whole = {name: frame[name].astype(float).round().astype(int) for name in self.numbers}
        instances = instances_of(frame[self.columns].assign(**whole))
        body = orjson.dumps({"instances": instances})
        codes = self.served.model.codec.decode(body, max_instances=len(instances)).codes
        return np.array(codes, dtype=np.float64)

    def predict_proba(self, frame: pd.DataFrame) -> FloatArray:
        """(N, 2) served probabilities."""
        return self.served.model.native.predict(self.rows(frame)).scores

    def predict(self, frame: pd.DataFrame) -> Any:
        """1 where the target, with its margin, is not reached."""
        assert self.served.policy is not None
        goal = self.served.policy.recourse.goal  # type: ignore[union-attr]
        return (goal.scores(self.predict_proba(frame)) < goal.limit).astype(int)


def ranges_of(recourse: Recourse, served: ServedModel, row: FloatArray) -> dict[str, list[Any]]:
    """What of each column may be advised to this applicant, the present value included."""
    ranges: dict[str, list[Any]] = {}
    for rule, present, column in zip(
        recourse.rules, row.tolist(), served.model.schema.columns, strict=True
    ):
        values = rule.values(present, 10_000)
        if not len(values):
            continue
        if column.levels is None:
            ends = [*values.tolist(), present]
            ranges[rule.name] = [int(min(ends)), int(max(ends))]
        else:
            ranges[rule.name] = [column.levels[int(code)] for code in [present, *values]]
    return ranges


def cheapest(asked: Problem, rows: FloatArray) -> float:
    """Of those rows that reach the target; inf without any."""
    costs = asked.costs(rows)[asked.score(rows) >= asked.target]
    return float(costs.min()) if len(costs) else np.inf


def rival_rows(explainer: Any, bank: Bank, applicant: pd.DataFrame, **limits: Any) -> FloatArray:
    """(N, F) what dice-ml found; N may be 0."""
    try:
        found = explainer.generate_counterfactuals(
            applicant, total_CFs=ANSWERS, desired_class=0, verbose=False, **limits
        )
    except Exception as error:  # noqa: BLE001  # it raises its own where it finds nothing
        print(f"  none: {type(error).__name__}")
        return np.empty((0, len(bank.columns)))
    frame = found.cf_examples_list[0].final_cfs_df
    return np.empty((0, len(bank.columns))) if frame is None or frame.empty else bank.rows(frame)


def explainer_of(bank: Bank, table: pd.DataFrame, method: str) -> Any:
    """dice-ml over the training rows."""
    import dice_ml

    data = dice_ml.Data(
        dataframe=table.assign(risk=(table["risk"] == "bad").astype(int)),
        continuous_features=bank.numbers,
        outcome_name="risk",
    )
    return dice_ml.Dice(data, dice_ml.Model(model=bank, backend="sklearn"), method=method)


def main() -> int:
    """Print how much dearer the rival's cheapest answers are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--applicants", type=int, default=20)
    parser.add_argument("--method", default="random", choices=("random", "genetic"))
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        served = served_bank(Path(folder))
    table = larger_table("german_credit")
    numbers = table.select_dtypes("number").columns.tolist()
    table = table.astype({name: object for name in table if name not in numbers})
    bank = Bank(served, [name for name in table if name != "risk"], numbers)
    explainer = explainer_of(bank, table[np.arange(len(table)) % 5 != 0], wanted.method)
    ratios = compared(bank, explainer, table.iloc[::5].drop(columns="risk"), wanted)
    print(f"{wanted.method}: {len(ratios)} compared, its cheapest costs {np.median(ratios):.2f} x")
    print(f"ours (median), at least {min(ratios):.2f} x")
    return int(min(ratios) < 1 - 1e-9)


def compared(
    bank: Bank, explainer: Any, applicants: pd.DataFrame, wanted: argparse.Namespace
) -> list[float]:
    """Cost of the rival's cheapest answer over that of ours, for each who got one of both."""
    served, ratios, seconds = bank.served, [], [0.0, 0.0]
    assert served.policy is not None
    recourse = served.policy.recourse
    assert recourse is not None
    native, goal = served.model.native, recourse.goal
    rows = bank.rows(applicants)
    declined = [i for i, s in enumerate(native.predict(rows).scores) if not goal.is_met(s)]
    seeded = {"random_seed": 7} if wanted.method == "random" else {}
    for place in declined[: wanted.applicants]:
        asked = Problem(
            score=lambda X: goal.scores(native.predict(X).scores),
            row=rows[place],
            target=goal.limit,
            rules=recourse.rules,
        )
        started = perf_counter()
        answers = search(asked).answers
        seconds[0] += perf_counter() - started
        ranges = ranges_of(recourse, served, rows[place])
        limits = {"features_to_vary": list(ranges), "permitted_range": ranges} | seeded
        started = perf_counter()
        rivals = rival_rows(explainer, bank, applicants.iloc[[place]], **limits)
        seconds[1] += perf_counter() - started
        cost = cheapest(asked, rivals)
        if answers and cost < np.inf:
            ratios.append(cost / answers[0].cost)
        elif cost < np.inf:
            ratios.append(0.0)
    print(f"seconds: ours {seconds[0]:.1f}, dice-ml {seconds[1]:.1f}")
    return ratios


if __name__ == "__main__":
    sys.exit(main())
