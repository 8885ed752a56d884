"""The whole service while its workers, their children, its queue and itself are killed, frozen and
emptied: every wanted explanation ends once, and predictions go on.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heavy_stack import Load, Stack, Subject, assert_counted_once, assert_each_ended_once
from servers import wait_until
from tables import breast_cancer
from valkey_server import Valkey, running_valkey, stopped_valkey
from workers import WorkerProcess, is_gone

from service.queue.server import INDEX

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
LEASE_SECONDS = 2.0
RECOVERY_SECONDS = LEASE_SECONDS + 2.0
FROZEN_SECONDS = 30.0
NORMAL_REQUESTS = 300

StartStack = Callable[..., Stack]


@pytest.fixture(scope="module")
def trees(demo_registry: Path) -> Subject:
    """Explained exactly, in milliseconds."""
    from xgboost import XGBClassifier

    (file,) = demo_registry.rglob("model.ubj")
    model = XGBClassifier(n_jobs=1)
    model.load_model(file)
    return Subject.of(demo_registry, "breast_cancer", model, breast_cancer()[0].iloc[:40])


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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartStack]:
    with ExitStack() as opened:

        def start(*parts: Any, **given: Any) -> Stack:
            return opened.enter_context(running_stack(tmp_path, *parts, **given))

        yield start


@contextmanager
def running_stack(
    data_dir: Path, subject: Subject, valkey: Valkey | None, *, workers: int, **given: Any
) -> Iterator[Stack]:
    settings = {"LEASE_SECONDS": LEASE_SECONDS, "JOB_TIME_LIMIT_SECONDS": 60, **given}
    texts = {name: str(value) for name, value in settings.items()}
    with closing(Stack(data_dir, subject, valkey, texts)) as stack:
        for _ in range(workers):
            stack.start_worker()
        stack.start_server()
        yield stack


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, trees: Subject) -> Iterator[Stack]:
    """One whose API and workers see all of the queue's faults, and count through them."""
    with (
        running_valkey() as valkey,
        running_stack(tmp_path_factory.mktemp("lasting"), trees, valkey, workers=2) as stack,
    ):
        yield stack


def kill_mid_job(stack: Stack, worker: WorkerProcess) -> float:
    """Kill a worker that holds jobs; seconds until no job of its was its any more."""
    pid = worker.process.pid
    worker.kill()
    killed = time.monotonic()
    wait_until(lambda: pid not in stack.held(), seconds=90)
    return time.monotonic() - killed


def test_a_worker_is_killed_over_its_job_and_the_queue_is_emptied(
    start: StartStack, trees: Subject, valkey: Valkey
) -> None:
    stack = start(trees, valkey, workers=2)
    with stack.load(pause_seconds=0.02) as load:
        worker = stack.busy_worker()
        with stopped(worker.children[0]):
            wait_until(lambda: worker.process.pid in stack.held())
            kill_mid_job(stack, worker)
        empty(stack, load)
    outcomes = assert_each_ended_once(stack, load)
    assert set(outcomes) == {"stored"}


def empty(stack: Stack, load: Load) -> None:
    """With jobs in it that wait and that run."""
    assert stack.valkey is not None
    with ExitStack() as opened, stack.valkey.client() as client:
        for worker in stack.workers.values():
            for child in worker.children:
                opened.enter_context(stopped(child))
        wait_until(lambda: client.hlen(INDEX) >= 10)
        client.flushall()
    go_on(load)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process neither runs nor ends, for as long as it is there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if not is_gone(pid):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.drill
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


def freeze(stack: Stack, load: Load) -> None:
    assert stack.valkey is not None
    wait_until(lambda: len(load.sent) >= NORMAL_REQUESTS, seconds=60)
    normal = load.since(0)
    stack.valkey.freeze()
    time.sleep(max(5.0, FROZEN_SECONDS * SCALE))
    frozen = load.since(len(normal))
    stack.valkey.thaw()
    for name, seconds in (("normal", normal), ("frozen", frozen)):
        p50, p99 = 1000 * np.quantile(seconds, [0.5, 0.99])
        print(f"{name}: {len(seconds)} predictions, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    assert np.quantile(frozen, 0.99) <= 1.5 * np.quantile(normal, 0.99) + 0.15


def kill_and_start(stack: Stack, load: Load) -> None:
    assert stack.valkey is not None
    for _ in range(2):
        stack.valkey.kill()
        go_on(load)
        stack.valkey.start()
        go_on(load)


def fill(stack: Stack, load: Load) -> None:
    """Over what it holds, and emptied when it can take nothing in."""
    assert stack.valkey is not None
    with stack.valkey.client() as client:
        client.config_set("maxmemory", "1")
        go_on(load)
        client.flushall()
        go_on(load)
        client.config_set("maxmemory", "64mb")


def go_on(load: Load) -> None:
    before = len(load.sent)
    wait_until(lambda: len(load.sent) >= before + 20, seconds=30)


@pytest.mark.drill
@pytest.mark.parametrize("fault", [freeze, kill_and_start, empty, fill])
def test_a_failing_queue_costs_no_prediction_and_no_explanation(
    lasting: Stack, fault: Callable[[Stack, Load], None]
) -> None:
    with lasting.load(clients=4, pause_seconds=0.02) as load:
        go_on(load)
        fault(lasting, load)
        go_on(load)
    ended = time.monotonic()
    outcomes = assert_each_ended_once(lasting, load)
    print(f"{len(load.sent)} requests, the last explanation {time.monotonic() - ended:.1f} s later")
    assert set(outcomes) == {"stored"}
    assert load.unanswered == 0
    assert_counted_once(lasting)


@pytest.mark.drill
def test_a_queue_that_is_down_at_start_gets_its_work_once_it_is_there(
    start: StartStack, trees: Subject
) -> None:
    with stopped_valkey() as valkey:
        stack = start(trees, valkey, workers=1)
        with stack.load() as load:
            go_on(load)
            valkey.start()
            go_on(load)
        outcomes = assert_each_ended_once(stack, load)
        assert set(outcomes) == {"stored"}
        assert_counted_once(stack)


@pytest.mark.drill
def test_what_an_api_left_pending_is_queued_by_the_next(
    start: StartStack, trees: Subject, valkey: Valkey
) -> None:
    """Half of it had never been queued."""
    stack = start(trees, valkey, workers=0)
    with stack.load() as load:
        for _ in range(max(2, int(5 * SCALE))):
            go_on(load)
            valkey.kill()
            go_on(load)
            stack.server.kill()
            valkey.start()
            stack.start_server()
        go_on(load)
    assert stack.pending() >= len(load.sent)
    stack.start_worker()
    stack.start_worker()
    outcomes = assert_each_ended_once(stack, load)
    assert set(outcomes) == {"stored"}


@pytest.mark.drill
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


@pytest.mark.drill
def test_a_version_no_worker_has_ends_late_and_with_its_reason(
    start: StartStack, trees: Subject, valkey: Valkey, tmp_path: Path
) -> None:
    """Counted as late when it was, and not again when it was given up."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stack = start(trees, valkey, workers=0, EXPLANATION_DEADLINE_SECONDS=4)
    stack.start_worker("--registry", str(elsewhere))
    request_id, load = stack.send()
    outcomes = assert_each_ended_once(stack, load)
    assert stack.explanation(request_id)["reason"].startswith(
        "no worker: there is no version 1 of model"
    )
    assert outcomes.total() == 1
    assert outcomes.keys() <= {"timeout", "failed"}
    assert_counted_once(stack)


@pytest.mark.drill
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
