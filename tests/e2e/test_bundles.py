"""Export and verify as an auditor meets them: a real service, the commands, one copied file."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bundle_changes import CHANGES
from reference_log import Bundle
from servers import Server, explaind, running_server, wait_until
from tables import breast_cancer, instances_of

from service import verify

REQUESTS = 12


@dataclass
class Audited:
    """A service that has answered, and what an auditor has taken from it."""

    data_dir: Path
    server: Server
    witness: Path
    vkey: str

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return explaind(*arguments, "--data-dir", str(self.data_dir))


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[Audited]:
    data_dir = tmp_path_factory.mktemp("audited")
    with running_server(data_dir, "--registry", str(demo_registry)) as server:
        client = server.client()
        rows = instances_of(breast_cancer()[0].iloc[:REQUESTS])
        for i, row in enumerate(rows):
            assert client.predict([row], headers={"X-Request-ID": f"request-{i}"}).status == 200

        def is_covered() -> bool:
            reply = client.get("/log/checkpoint")
            return reply.status == 200 and int(reply.body.split(b"\n")[1]) >= REQUESTS

        wait_until(is_covered)
        witness = data_dir / "kept.checkpoint"
        witness.write_bytes(client.get("/log/checkpoint").body)
        vkey = client.get("/log/key").body.decode().strip()
        yield Audited(data_dir, server, witness, vkey)


def test_a_bundle_verifies_by_the_copied_file_alone(audited: Audited, tmp_path: Path) -> None:
    bundle, program = tmp_path / "bundle.jsonl.gz", tmp_path / "verify.py"
    done = audited.command("export", "--out", str(bundle), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["entries"], told["left_out"]) == (REQUESTS, 0)
    program.write_bytes(Path(verify.__file__).read_bytes())
    options = ["--witness", str(audited.witness), "--key", audited.vkey, "--json"]
    command = [sys.executable, "-I", str(program), str(bundle), *options]
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    ours = explaind("verify", str(bundle), *options)
    assert alone.returncode == ours.returncode == 0, alone.stderr
    verdict: Any = json.loads(alone.stdout)
    assert verdict == json.loads(ours.stdout)
    assert verdict["verdict"] == "consistent with the witness"
    assert (verdict["checked"], verdict["whole_log"]) == (REQUESTS, True)


def test_every_change_of_the_service_s_own_bundle_is_located(
    audited: Audited, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    assert audited.command("export", "--out", str(path)).returncode == 0
    content = path.read_bytes()
    for name, change in CHANGES.items():
        bundle = Bundle.read(content)
        change.make(bundle)
        path.write_bytes(bundle.content())
        found = verify.verify_file(path)["findings"][0]
        assert change.is_named_by((found["seq"], found["problem"]), REQUESTS), (name, found)


def test_one_request_is_exported_and_its_proof_verifies(audited: Audited, tmp_path: Path) -> None:
    bundle, proof = tmp_path / "bundle", tmp_path / "proof.json"
    selected = ("--request-id", "request-3", "--witness", str(audited.witness))
    assert audited.command("export", "--out", str(bundle), *selected).returncode == 0
    done = explaind("verify", str(bundle), "--witness", str(audited.witness))
    assert done.returncode == 0, done.stdout
    assert "request-4" not in bundle.read_text()
    proof.write_bytes(audited.server.client().get("/explanations/request-3/proof").body)
    assert explaind("verify", str(proof), "--key", audited.vkey).returncode == 0
    proof.write_bytes(proof.read_bytes().replace(b"request-3", b"request-5"))
    done = explaind("verify", str(proof))
    assert done.returncode == 1
    assert done.stdout.startswith("failed\n  seq ")


def test_the_database_verifies_beside_the_running_service_until_it_is_changed(
    audited: Audited,
) -> None:
    done = audited.command("verify", "--witness", str(audited.witness))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("consistent with the witness\n")
    path = audited.data_dir / "evidence.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER events_change_rail")
        connection.commit()
    done = audited.command("verify", "--json")
    assert done.returncode == 1
    assert "events_change_rail" in json.loads(done.stdout)["findings"][0]["problem"]


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("--out", "OUT", "--request-id", "unknown-request"), 3),
        (("--out", "OUT/absent/bundle"), 4),
        (("--out", "OUT", "--witness", "absent"), 4),
        (("--out", "OUT", "--database-url", "sqlite:////absent/evidence.db"), 5),
        (("--out", "OUT", "--log", "other"), 2),
        (("--out", "OUT", "--log", "access", "--model", "credit"), 2),
    ],
    ids=range(6),
)
def test_exit_codes_of_export(
    audited: Audited, tmp_path: Path, arguments: tuple[str, ...], exit_code: int
) -> None:
    out = str(tmp_path / "bundle")
    done = audited.command("export", *(word.replace("OUT", out) for word in arguments))
    assert done.returncode == exit_code, done.stderr
    assert len(done.stderr.splitlines()) == 1 or exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    assert explaind("verify", str(tmp_path / "absent")).returncode == 2
    empty = explaind("verify", "--data-dir", str(tmp_path))
    assert (empty.returncode, list(tmp_path.iterdir())) == (5, [])
