"""What is on the disk of a running service: no input, before an erasure or after it."""

import base64
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import explaind
from live_app import LiveApp, live_app
from servers import JSON, WITH_WORKER, running_server, wait_until

from service.errors import UnavailableError
from service.evidence.boxes import refs_of
from service.evidence.sections import sections_about
from service.evidence.store import EvidenceStore
from service.keystore import Kek, KeyStore
from service.settings import Settings
from service.storing import evidence_store

Instance = dict[str, Any]

CARD = 4111111111111111
EMAIL = "eve@example.org"
SECRETS = [str(CARD).encode(), EMAIL.encode(), b"bob-the-subject", b"4.111111111111111"]


def planted(rows: list[Instance]) -> list[Instance]:
    first, second = dict(rows[0]), dict(rows[1])
    first["mean area"] = CARD
    return [first, second]


def ask(app: Any, instances: list[Instance], subjects: list[str | None], name: str) -> Any:
    body = json.dumps({"instances": instances, "subjects": subjects}).encode()
    headers = {**JSON, "X-Request-ID": name}
    return app.client().request("POST", "/predict?explain=true", body, headers)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name not in {"secret", "key-encryption-key"}
    }


def found_in(folder: Path) -> set[tuple[str, bytes]]:
    return {
        (name, secret)
        for name, content in files_of(folder).items()
        for secret in SECRETS
        if secret in content
    }


def event_of(folder: Path, request_id: str) -> Any:
    with closing(sqlite3.connect(folder / "evidence.db", timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT * FROM events WHERE request_id = ? AND event_type = 'decision'"
        row = dict(connection.execute(query, (request_id,)).fetchone())
    return type("Row", (), row)


def test_no_input_stands_in_any_file_before_an_erasure_or_after_it(
    data_dir: Path, rows: list[Instance]
) -> None:
    with running_server(data_dir) as server:
        reply = ask(server, planted(rows), [EMAIL, "bob-the-subject"], "two-subjects")
        assert reply.status == 200
        assert found_in(data_dir) == set(), "while it runs, in the write-ahead logs as well"
        assert {"evidence.db", "evidence.db-wal", "keys.db"} <= files_of(data_dir).keys()
        first = server.client().get("/explanations/two-subjects").json()
        assert first["instances"][0]["mean area"] == CARD
        wrapped = erase_first(data_dir, event_of(data_dir, "two-subjects"))
        assert found_in(data_dir) == set()
        assert not any(key in content for content in files_of(data_dir).values() for key in wrapped)
        left = server.client().get("/explanations/two-subjects").json()
        assert left["instances"] == [None, first["instances"][1]]
        assert left["predictions"] == [None, first["predictions"][1]]
        for name in ("values", "base_values", "outputs", "top", "additivity_error"):
            assert left["explanation"][name] == [None, first["explanation"][name][1]]
        assert left["model"] == first["model"]
        said = server.log.read_bytes()
    assert not any(secret in said for secret in SECRETS)
    assert found_in(data_dir) == set()


def erase_first(folder: Path, row: Any) -> list[bytes]:
    """Destroy the keys of the first subject; what they were stored as."""
    settings = Settings.load({}, data_dir=folder)
    kek = Kek(settings.key_encryption_key_file.read_bytes())
    refs = refs_of(row)
    gone = sections_about(row.subjects, json.loads(row.subjects)[0], len(refs))
    wrapped = wrapped_of(folder, [refs[number] for number in gone])
    with closing(sqlite3.connect(folder / "evidence.db", timeout=10)) as connection:
        said = ("default", row.request_id, json.loads(row.subjects)[0], "erasure", "event", 0)
        connection.execute("INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?)", said)
        connection.commit()
    with KeyStore.open(settings.keys_database_url, kek) as keys:
        keys.destroy(refs[number] for number in gone)
    return wrapped


def test_a_record_whose_key_is_missing_is_unreadable_and_not_gone(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir) as app:
        assert ask(app, rows[:1], ["a"], "keyless-one").status == 200
        (ref,) = refs_of(event_of(data_dir, "keyless-one"))
        with closing(sqlite3.connect(data_dir / "keys.db", timeout=10)) as connection:
            connection.execute("DELETE FROM record_keys WHERE ref = ?", (ref,))
            connection.commit()
        reply = app.client().get("/explanations/keyless-one")
        assert reply.status == 500
        assert reply.json()["type"].endswith("record_unreadable")
        failed = {"backend": "sql", "outcome": "error"}
        assert value(app, "explain_audit_reads_total", failed) == 1


def test_a_key_store_that_is_away_is_a_store_that_is_away(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir) as app:
        keys = app.runtime.evidence.store.sealer.keys
        assert keys is not None
        keys.close()
        assert ask(app, rows[:1], ["a"], "keyless-two").status == 503
        failed = {"model": "breast_cancer", "stage": "store", "type": "StoreUnavailableError"}
        assert value(app, "explain_errors_total", failed) == 1


def value(app: LiveApp, name: str, labels: dict[str, str]) -> float | None:
    return app.runtime.metrics.registry.get_sample_value(name, labels)


def wrapped_of(folder: Path, refs: list[bytes]) -> list[bytes]:
    with closing(sqlite3.connect(folder / "keys.db", timeout=10)) as connection:
        query = "SELECT wrapped FROM record_keys WHERE ref = ?"
        return [connection.execute(query, (ref,)).fetchone()[0] for ref in refs]


def test_the_scan_would_find_an_input_that_is_stored_as_it_is(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir, encryption=False) as app:
        assert ask(app, planted(rows), [None, None], "plain-one").status == 200
        assert (str(CARD).encode()) in {secret for _, secret in found_in(data_dir)}
        assert not (data_dir / "keys.db").exists()


def test_encryption_may_be_turned_on_and_off_over_the_same_database(
    data_dir: Path, rows: list[Instance]
) -> None:
    answers = {}
    for number, encryption in enumerate([False, True, False]):
        with live_app(data_dir, encryption=encryption) as app:
            name = f"request-{number}"
            answers[name] = ask(app, rows[:2], ["a", "b"], name).json()["predictions"]
            for known, predictions in answers.items():
                found = app.client().get(f"/explanations/{known}").json()
                assert found["predictions"] == predictions
    assert event_of(data_dir, "request-1").encoding == "aesgcm"
    assert event_of(data_dir, "request-2").encoding == "json"


@pytest.mark.parametrize("damage", ["lost", "another", "short"])
def test_a_wrong_key_encryption_key_is_one_line_and_5_before_anything_is_answered(
    data_dir: Path, rows: list[Instance], damage: str
) -> None:
    with live_app(data_dir) as app:
        assert ask(app, rows[:1], ["a"], "request-1").status == 200
    file = data_dir / "key-encryption-key"
    key = file.read_bytes()
    file.unlink()
    if damage != "lost":
        file.write_bytes(os.urandom(32) if damage == "another" else key[:31])
    ended = explaind("serve", "--data-dir", str(data_dir), "--port", "0")
    assert ended.returncode == 5
    last = ended.stderr.strip().splitlines()[-1]
    assert "key-encryption key" in last
    assert "Traceback" not in ended.stderr
    assert explaind("get", "request-1", "--data-dir", str(data_dir)).returncode == 5
    file.unlink(missing_ok=True)
    file.write_bytes(key)
    assert explaind("get", "request-1", "--data-dir", str(data_dir)).returncode == 0


@pytest.mark.drill
def test_the_key_may_come_from_the_environment_and_reaches_the_worker(
    data_dir: Path, rows: list[Instance]
) -> None:
    key = os.urandom(32)
    text = base64.b64encode(key).decode()
    env = {"EXPLAIND_KEY_ENCRYPTION_KEY": text, "EXPLAIND_INLINE_BUDGET_SECONDS": "1e-9"}
    env |= WITH_WORKER
    with running_server(data_dir, env=env) as server:
        asked = ask(server, rows[:2], ["a", "b"], "request-1")
        assert asked.status == 200
        client = server.client()
        explanation: dict[str, Any] = {}

        def is_complete() -> bool:
            explanation.update(client.get("/explanations/request-1").json()["explanation"])
            return explanation["status"] == "complete"

        wait_until(is_complete, seconds=120)
        assert explanation["lane"] == "queued"
        assert text not in server.log.read_text()
    assert not (data_dir / "key-encryption-key").exists()
    settings = Settings.load({}, data_dir=data_dir)
    with (
        KeyStore.open(settings.keys_database_url, Kek(key)) as keys,
        EvidenceStore.open(settings.database_url, keys=keys) as store,
    ):
        record = store.record("default", "request-1")
    assert record is not None
    assert record.final is not None
    assert len(json.loads(record.final.header)["payload"]["sections"]) >= 3
    with pytest.raises(UnavailableError, match="key-encryption key"), evidence_store(settings):
        pass


def test_a_lost_key_store_is_not_taken_for_an_erasure(data_dir: Path, rows: list[Instance]) -> None:
    with live_app(data_dir) as app:
        assert ask(app, rows[:1], ["a"], "request-1").status == 200
    for path in data_dir.glob("keys.db*"):
        path.unlink()
    ended = explaind("serve", "--data-dir", str(data_dir), "--port", "0")
    assert ended.returncode == 5
    assert "the key store is not the one this database" in ended.stderr.strip().splitlines()[-1]


def test_what_explains_a_record_again_is_as_divided_as_the_record(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir) as app:
        assert ask(app, rows[:2], ["a", "b"], "request-1").status == 200
        body = json.dumps({"request_id": "request-1", "method": "permutation"}).encode()
        again = app.client().request("POST", "/explanations", body, dict(JSON)).json()
        row = event_of(data_dir, again["request_id"])
        assert row.subjects == event_of(data_dir, "request-1").subjects
        assert len(refs_of(row)) == 4


def test_bytes_are_the_same_however_often_they_are_read(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir) as app:
        reply = ask(app, rows[:3], ["a", "b", None], "request-1")
        again = ask(app, rows[:3], ["a", "b", None], "request-1")
        assert again.body == reply.body
        assert again.headers["idempotent-replay"] == "true"
        first = app.client().get("/explanations/request-1")
    with live_app(data_dir) as app:
        assert app.client().get("/explanations/request-1").body == first.body
