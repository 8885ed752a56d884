"""The whole service while its queue and its API are killed, frozen and emptied: every wanted
explanation ends once, and predictions go on.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from heavy_drills import StartStack, go_on, kill_mid_job, running_stack, stopped
from heavy_stack import Load, Stack, Subject, assert_counted_once, assert_each_ended_once
from servers import wait_until
from tables import breast_cancer
from valkey_server import Valkey, running_valkey, stopped_valkey

from service.queue.server import INDEX

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
FROZEN_SECONDS = 30.0
NORMAL_REQUESTS = 300

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def trees(demo_registry: Path) -> Subject:
    """Explained exactly, in milliseconds."""
    from xgboost import XGBClassifier

    (file,) = demo_registry.rglob("model.ubj")
    model = XGBClassifier(n_jobs=1)
    model.load_model(file)
    return Subject.of(demo_registry, "breast_cancer", model, breast_cancer()[0].iloc[:40])


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, trees: Subject) -> Iterator[Stack]:
    """One whose API and workers see all of the queue's faults, and count through them."""
    with (
        running_valkey() as valkey,
        running_stack(tmp_path_factory.mktemp("lasting"), trees, valkey, workers=2) as stack,
    ):
        yield stack


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
