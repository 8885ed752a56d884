"""Searches for counterfactuals, against as many single predictions as each evaluates rows.

    EXPLAIND_TEST_DATA=... .venv/bin/python tests/benchmarks/recourse.py [--applicants 60]

German credit, XGBoost, the policy of docs/recourse.md, every declined applicant of a fifth that was
kept out of training. The baseline is the library's public call, `Booster.inplace_predict`, one row
at a time, as a search without batches calls it. Exit code 1 when a search takes over 0.5 s, or the
baseline is faster.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import orjson
from measuring import use_one_core

sys.path.append(str(Path(__file__).parents[1] / "support"))

from german_bank import register_bank
from tables import instances_of, larger_table

from service.advising import Advice, advise
from service.metrics import Metrics
from service.policies import Policies
from service.registry import RegisteredModel
from service.secrets import Keyring
from service.served import ServedModel

MOST_SECONDS = 0.5
ALONE = 500
"""Single predictions that are timed."""


def served_bank(folder: Path) -> ServedModel:
    """The model, trained on four fifths, under the page's policy."""
    registry = register_bank(folder)
    policies = Policies(folder / "policy.toml", Keyring.open(folder / "secret"))
    loaded = registry.load("german_credit", 1)
    return ServedModel.of(loaded, Metrics(), retention_days=1, policy=policies.of(loaded))


def seconds_alone(model: RegisteredModel, rows: np.ndarray) -> float:
    """The median of the library's public call for one row."""
    booster = model.native.booster  # type: ignore[attr-defined]
    taken = []
    for i in range(ALONE):
        started = perf_counter()
        booster.inplace_predict(rows[i % len(rows)][None])
        taken.append(perf_counter() - started)
    return float(np.median(taken))


def main() -> int:
    """Print what was measured; the exit code says whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--applicants", type=int, default=60)
    wanted = parser.parse_args().applicants
    use_one_core()
    with tempfile.TemporaryDirectory() as folder:
        served = served_bank(Path(folder))
    rows, found = searched(served, wanted)
    alone = seconds_alone(served.model, rows)
    seconds = np.array([advice.seconds for advice in found])
    used = np.array([advice.document["model_evaluations"] for advice in found])
    statuses = [advice.status for advice in found]
    ratio = used.sum() * alone / seconds.sum()
    print(f"applicants {len(found)}: { ({s: statuses.count(s) for s in sorted(set(statuses))}) }")
    print(f"search, ms: median {np.median(seconds) * 1e3:.1f}, largest {seconds.max() * 1e3:.1f}")
    print(f"model rows: median {np.median(used):.0f}, largest {used.max()}")
    print(f"as many single public predictions ({alone * 1e6:.0f} us each) take {ratio:.1f} x")
    return int(seconds.max() > MOST_SECONDS or ratio < 1)


def searched(served: ServedModel, wanted: int) -> tuple[np.ndarray, list[Advice]]:
    """All applicants' rows, and what came of the searches for the declined ones."""
    assert served.policy is not None
    recourse = served.policy.recourse
    assert recourse is not None
    instances = instances_of(larger_table("german_credit").drop(columns="risk").iloc[::5])
    body = orjson.dumps({"instances": instances})
    decoded = served.model.codec.decode(body, max_instances=len(instances))
    rows = np.array(decoded.codes, dtype=np.float64)
    scores = served.model.native.predict(rows).scores
    declined = [place for place, row in enumerate(scores) if not recourse.goal.is_met(row)]
    return rows, [
        advise(served, recourse, instances[place], rows[place]) for place in declined[:wanted]
    ]


if __name__ == "__main__":
    sys.exit(main())
