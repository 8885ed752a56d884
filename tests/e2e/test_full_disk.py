"""The disk of the evidence fills up under load, then the spool's, then both have room again."""

import os
import shutil
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
from servers import Client, assert_becomes_ready, wait_until
from small_disks import CAN_MOUNT, SIZES, SmallDisk, start_on_small_disks
from tables import breast_cancer, instances_of, mixed

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
        assert_becomes_ready(client)
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


@pytest.mark.drill
def test_a_disk_that_fills_up_again_and_again_is_survived(tmp_path: Path, two_models: Path) -> None:
    fill_and_free(tmp_path, two_models, turns=max(2, int(5 * SCALE)))
