"""The disk of the evidence fills up under load, then the spool's, then both have room again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from drills import (
    BEST_EFFORT,
    EVENTS,
    Load,
    Witness,
    assert_alive,
    drained,
    is_refused,
    is_spooled,
    is_stored,
    is_without,
    queried,
)
from servers import Client, Server, start_server, wait_until
from tables import breast_cancer, instances_of, mixed

CAN_MOUNT = (
    subprocess.run(
        ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
    ).returncode
    == 0
    if shutil.which("unshare")
    else False
)
pytestmark = pytest.mark.skipif(
    not CAN_MOUNT,
    reason="no mounts of one's own here; a file that may not grow stands in for a full disk in "
    "tests/unit/service/evidence/test_faults.py",
)
SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
ROWS = {
    "/models/breast_cancer/predict": instances_of(breast_cancer()[0].iloc[:50]),
    "/models/mixed/predict": instances_of(mixed()[0].iloc[:50]),
}
SIZES = {"small": "24m", "spool": "4m"}
"""Of two disks of their own, one for the database and one for the spool."""


def start_on_small_disks(folder: Path) -> Server:
    mounts = [f'mount -t tmpfs -o size={size} none "$0/{name}"' for name, size in SIZES.items()]
    for name in SIZES:
        (folder / name).mkdir()
    script = " && ".join([*mounts, 'exec "$@"'])
    return start_server(
        folder,
        "--policy-file",
        str(folder / "policy.toml"),
        env={
            "EXPLAIND_EMBEDDED_WORKERS": "0",
            "EXPLAIND_DATABASE_URL": f"sqlite:///{folder}/small/evidence.db",
        },
        inside=("unshare", "--map-root-user", "--mount", "sh", "-c", script, str(folder)),
    )


class SmallDisk:
    """One of the server's, seen through the server: nobody else has it mounted."""

    def __init__(self, server: Server, folder: Path, name: str) -> None:
        self.path = Path(f"/proc/{server.process.pid}/root{folder}/{name}")
        self._ballast = self.path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._ballast.unlink()

    def copy(self, place: Path) -> str:
        """The URL of the database as it is now, while nothing writes: SQLite would not follow the
        path there.
        """
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for file in self.path.glob("evidence.db*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, place)
        return f"sqlite:///{place}/evidence.db"


def fill_and_free(folder: Path, two_models: Path, *, turns: int) -> None:
    shutil.copytree(two_models, folder / "registry")
    (folder / "policy.toml").write_text(BEST_EFFORT)
    server, witness = start_on_small_disks(folder), Witness()
    try:
        client = server.client()
        disk, spool = (SmallDisk(server, folder, name) for name in SIZES)
        load = Load([server.url], ROWS)
        with load.running():
            for _ in range(turns):
                witness.wait_for_one(client)
                fill_and_free_under(load, client, disk, spool)
                wait_until(drained(client), seconds=30)
        print(load.summary())
        load.assert_kept(client)
        wait_until(lambda: witness.look(client) == events_in(disk, folder), seconds=30)
        url = disk.copy(folder / "copy")
        witness.assert_log_is_whole(url, client, list(load.acknowledged()))
        assert client.get("/readyz").json() == {"status": "ready"}
        assert_alive(server)
    finally:
        server.close()


def fill_and_free_under(load: Load, client: Client, disk: SmallDisk, spool: SmallDisk) -> None:
    load.until(30, is_stored)
    disk.fill()
    load.until(5, is_refused)
    load.until(20, is_spooled)
    assert client.get("/readyz").json()["status"] == "degraded"
    spool.fill()
    load.until(10, is_without)
    assert client.get("/livez").status == 200
    spool.free()
    load.until(10, is_spooled)
    disk.free()
    load.until(30, is_stored)


def events_in(disk: SmallDisk, folder: Path) -> int:
    return int(queried(disk.copy(folder / "copy"), EVENTS)[0][0])


def test_a_full_disk_is_survived_without_a_restart(tmp_path: Path, two_models: Path) -> None:
    fill_and_free(tmp_path, two_models, turns=1)


@pytest.mark.drill
def test_a_disk_that_fills_up_again_and_again_is_survived(tmp_path: Path, two_models: Path) -> None:
    fill_and_free(tmp_path, two_models, turns=max(2, int(5 * SCALE)))
