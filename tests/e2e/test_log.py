"""One log of two API processes that share a PostgreSQL, a registry, a secret and a queue."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ledgers import query
from servers import Server, explaind, running_server, wait_until
from tables import breast_cancer, instances_of
from valkey_server import running_valkey

REQUESTS = 60


def sent_to(server: Server) -> list[str]:
    client = server.client()
    rows = instances_of(breast_cancer()[0].iloc[:1])
    replies = [client.predict(rows) for _ in range(REQUESTS)]
    assert {reply.status for reply in replies} == {200}
    return [reply.headers["x-request-id"] for reply in replies]


@pytest.mark.drill
def test_two_api_processes_keep_one_log(
    tmp_path: Path, demo_registry: Path, postgres_url: str
) -> None:
    with running_valkey() as valkey:
        shared = {
            "EXPLAIND_DATABASE_URL": postgres_url,
            "EXPLAIND_REGISTRY": str(demo_registry),
            "EXPLAIND_SECRET_FILE": str(tmp_path / "secret"),
            "EXPLAIND_KEY_ENCRYPTION_KEY_FILE": str(tmp_path / "key-encryption-key"),
            "EXPLAIND_REDIS_URL": valkey.url,
        }
        folders = [tmp_path / name for name in ("a", "b")]
        for folder in folders:
            folder.mkdir()
        with running_server(folders[0], env=shared) as first:
            with running_server(folders[1], env=shared) as second, ThreadPoolExecutor(2) as pool:
                ids = [*pool.map(sent_to, (first, second))]
                proofs = [f"/explanations/{each}/proof" for sent in ids for each in sent]
                client = second.client()
                wait_until(lambda: all(client.get(path).status == 200 for path in proofs))
                second.kill()
            more = sent_to(first)
            assert first.stop() == 0
        found = explaind("checkpoint", env={**shared, "EXPLAIND_DATA_DIR": str(folders[0])})
    assert found.returncode == 0
    assert found.stdout == (folders[0] / "checkpoint.evidence").read_text()
    total = sum(map(len, ids)) + len(more)
    seqs = query(postgres_url, "SELECT seq FROM log_entries WHERE log = 'evidence' ORDER BY seq")
    assert [seq for (seq,) in seqs] == list(range(total))
    assert query(postgres_url, "SELECT count(*) FROM events") == [(total,)]
    assert int(found.stdout.split("\n")[1]) == total
