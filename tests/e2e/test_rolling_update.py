"""A rolling update as docs/deployment.md orders it: two API processes over one PostgreSQL, each
replaced under load.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from balancing import Asking, Balancer
from servers import Server, start_server, wait_until
from tables import breast_cancer, instances_of
from valkey_server import running_valkey

DRAIN_SECONDS = 1.5
CLIENTS = 4
ENOUGH = 20
"""Answers of a process before the next step."""


@dataclass(eq=False)
class Cluster:
    """Replicas with a data directory each, and all else in common."""

    folder: Path
    settings: dict[str, str]
    balancer: Balancer = field(default_factory=Balancer)
    servers: list[Server] = field(default_factory=list)

    def start(self) -> Server:
        """One replica more; connections come once it is ready."""
        data_dir = self.folder / f"replica-{len(self.servers)}-{len(self.balancer.urls)}"
        data_dir.mkdir()
        server = start_server(data_dir, env=self.settings)
        self.servers.append(server)
        self.balancer.urls.add(server.url)
        wait_until(lambda: server.url in self.balancer.ready, seconds=30)
        return server

    def replace(self, old: Server) -> int:
        """A new replica, then the old one's end: its exit code."""
        self.start()
        exit_code = old.stop()
        self.balancer.urls.discard(old.url)
        return exit_code


@pytest.fixture
def cluster(tmp_path: Path, demo_registry: Path, postgres_url: str) -> Iterator[Cluster]:
    common = {
        "EXPLAIND_DATABASE_URL": postgres_url,
        "EXPLAIND_REGISTRY": str(demo_registry),
        "EXPLAIND_SECRET_FILE": str(tmp_path / "secret"),
        "EXPLAIND_KEY_ENCRYPTION_KEY_FILE": str(tmp_path / "key-encryption-key"),
        "EXPLAIND_DRAIN_SECONDS": str(DRAIN_SECONDS),
    }
    with ExitStack() as opened:
        valkey = opened.enter_context(running_valkey())
        found = Cluster(tmp_path, {**common, "EXPLAIND_REDIS_URL": valkey.url})
        opened.callback(lambda: [server.close() for server in found.servers])
        opened.enter_context(found.balancer.running())
        yield found


@pytest.mark.drill
def test_no_request_fails_and_no_record_is_lost_while_every_process_is_replaced(
    cluster: Cluster,
) -> None:
    old = [cluster.start(), cluster.start()]
    asking = Asking(cluster.balancer, instances_of(breast_cancer()[0].iloc[:2]))
    with asking.running(CLIENTS):
        for server in old:
            wait_until(lambda server=server: asking.answered_by[server.url] > ENOUGH, seconds=30)
            assert cluster.replace(server) == 0
        new = cluster.servers[-2:]
        for server in new:
            wait_until(lambda server=server: asking.answered_by[server.url] > ENOUGH, seconds=30)
    assert asking.failures == []
    for server in old:
        assert server.url in cluster.balancer.turned_away
        assert asking.sent_away_by[server.url] > 0
    assert {server.stop() for server in new} == {0}
    assert {reply.status for reply in asking.replies} == {200}
    assert {reply.headers["evidence"] for reply in asking.replies} == {"stored"}
    assert {r.json()["explanation"]["status"] for r in asking.replies} == {"complete"}
    _assert_all_are_in_the_log(cluster, {r.json()["request_id"] for r in asking.replies})


def _assert_all_are_in_the_log(cluster: Cluster, request_ids: set[str]) -> None:
    """Every answered request is one event, and the events have the places 0, 1, 2, ..."""
    url = cluster.settings["EXPLAIND_DATABASE_URL"].replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        stored = connection.execute("SELECT request_id, event_id FROM events").fetchall()
        places = connection.execute(
            "SELECT seq, event_id FROM log_entries WHERE log = 'evidence' ORDER BY seq"
        ).fetchall()
    assert sorted(request_id for request_id, _ in stored) == sorted(request_ids)
    assert [seq for seq, _ in places] == list(range(len(stored)))
    assert {event_id for _, event_id in places} == {event_id for _, event_id in stored}


@pytest.mark.drill
def test_two_processes_that_start_at_once_on_an_empty_database_both_serve(
    cluster: Cluster,
) -> None:
    with ThreadPoolExecutor(2) as pool:
        folders = [cluster.folder / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        started = list(pool.map(lambda f: start_server(f, env=cluster.settings), folders))
    cluster.servers += started
    assert [server.client().get("/readyz").status for server in started] == [200, 200]
