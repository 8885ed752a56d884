"""The whole service while its workers, their children and itself are killed over jobs that take
long: every wanted explanation ends once.
"""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from heavy_drills import LEASE_SECONDS, StartStack, go_on, kill_mid_job
from heavy_stack import Stack, Subject, assert_counted_once, assert_each_ended_once
from servers import wait_until
from tables import breast_cancer
from valkey_server import Valkey
from workers import is_gone

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
RECOVERY_SECONDS = LEASE_SECONDS + 2.0

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Only called: a few tenths of a second a row."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from service.registry import Registry

    X, y = breast_cancer()
    model = make_pipeline(StandardScaler(), PCA(5), LogisticRegression()).fit(X, y)
    registry = tmp_path_factory.mktemp("called")
    Registry(registry).register("called", model, X, y)
    return Subject.of(registry, "called", model, X.iloc[:40])


def test_workers_killed_over_their_jobs_many_times_lose_nothing(
    start: StartStack, network: Subject, valkey: Valkey
) -> None:
    """A job that three workers in a row died of is given up; any other is explained.

    Each kill leaves another worker that has nothing to do; waiting for that takes most of 17 s, so
    that smaller scales have far fewer kills.
    """
    times = max(3, int(50 * SCALE**2))
    stack = start(network, valkey, workers=3)
    recovered = []
    with stack.load(clients=1, pause_seconds=1.5) as load:
        for _ in range(times):
            wait_until(lambda: stack.ready() - stack.held().keys(), seconds=120)
            worker = stack.busy_worker(seconds=60)
            recovered.append(kill_mid_job(stack, worker))
            stack.start_worker()
    outcomes = assert_each_ended_once(stack, load, seconds=120)
    print(
        f"{times} kills, {len(load.sent)} requests: {dict(outcomes)}; another worker had the jobs "
        f"after p50 {np.median(recovered):.2f} s, at most {max(recovered):.2f} s"
    )
    assert outcomes.keys() <= {"stored", "dead"}
    assert outcomes["dead"] <= times // 2
    assert np.median(recovered) < RECOVERY_SECONDS


def test_a_job_that_stops_or_ends_its_child_twice_is_given_up_with_its_reason(
    start: StartStack, network: Subject, valkey: Valkey
) -> None:
    """Once is no harm. The limit holds for a child's first task too, which loads the model."""
    limit = 15
    stack = start(network, valkey, workers=1, JOB_TIME_LIMIT_SECONDS=limit)
    cases = {
        (signal.SIGSEGV, 1): None,
        (signal.SIGSEGV, 2): "the computing process was ended by SIGSEGV, twice",
        (signal.SIGKILL, 2): "the computing process was ended by SIGKILL, twice",
        (signal.SIGSTOP, 2): f"no progress for {limit} s, twice",
    }
    loads = []
    for turn, ((number, times), reason) in enumerate(cases.items()):
        request_id, load = stack.send(rows_each=20, turn=turn)
        loads.append(load)
        last = 0
        for _ in range(times):
            last = signal_child(stack, number, last)
        wait_until(lambda: stack.pending() == 0, seconds=60)
        explanation = stack.explanation(request_id)
        assert explanation["status"] == ("complete" if reason is None else "failed")
        assert explanation["reason"] == reason
    outcomes = assert_each_ended_once(stack, *loads)
    assert outcomes == {"stored": 1, "dead": 3}
    assert_counted_once(stack)


def signal_child(stack: Stack, number: signal.Signals, last: int) -> int:
    """Once a child that is not the last one is known to work, and not only to start."""
    children: list[int] = []

    def is_new() -> bool:
        children[:] = stack.busy_worker().children
        return bool(children) and children[0] != last

    wait_until(is_new, seconds=30)
    stack.wait_for_progress()
    os.kill(children[0], number)
    return children[0]


def test_a_killed_service_leaves_no_process_and_its_successor_finishes_the_work(
    start: StartStack, network: Subject
) -> None:
    stack = start(network, None, workers=0)
    with stack.load(clients=4) as load:
        for _ in range(max(2, int(5 * SCALE))):
            wait_until(lambda: len(descendants(stack.server.process.pid)) == 3, seconds=30)
            go_on(load)
            started = descendants(stack.server.process.pid)
            stack.server.kill()
            wait_until(lambda started=started: all(map(is_gone, started)))
            stack.start_server()
    assert stack.pending() > 0
    outcomes = assert_each_ended_once(stack, load, seconds=300)
    print(f"{len(load.sent)} requests: {dict(outcomes)}")
    assert outcomes.keys() <= {"stored", "dead"}


def descendants(pid: int) -> list[int]:
    """Its children and theirs."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return children + [below for child in children for below in descendants(child)]
