"""Disks of a server's own that a test can fill up."""

import shutil
import subprocess
from pathlib import Path

from servers import Server, start_server

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
SIZES = {"small": "24m", "spool": "4m"}
"""Of two disks of their own, one for the database and one for the spool."""


def start_on_small_disks(folder: Path, *arguments: str) -> Server:
    """Its database on one, its spool on the other; the policy is the folder's policy.toml."""
    mounts = [f'mount -t tmpfs -o size={size} none "$0/{name}"' for name, size in SIZES.items()]
    for name in SIZES:
        (folder / name).mkdir()
    script = " && ".join([*mounts, 'exec "$@"'])
    return start_server(
        folder,
        "--policy-file",
        str(folder / "policy.toml"),
        *arguments,
        env={
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
