"""Results go to stdout, progress and text for people to stderr."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(help="Data directory (default ./explaind-data, or EXPLAIND_DATA_DIR)."),
]
RegistryDir = Annotated[Path | None, typer.Option("--registry", help="Registry directory.")]
DatabaseUrl = Annotated[str | None, typer.Option(help="Evidence database.")]
RedisUrl = Annotated[str | None, typer.Option(help="Queue: Redis or Valkey, 7 or newer.")]
SecretFile = Annotated[Path | None, typer.Option(help="32 bytes that all replicas share.")]
Encryption = Annotated[bool | None, typer.Option(help="Encrypt stored payloads (default: yes).")]
KeysDatabaseUrl = Annotated[str | None, typer.Option(help="Key store.")]
KeyEncryptionKeyFile = Annotated[
    Path | None, typer.Option(help="32 bytes that wrap the keys of the key store.")
]
PolicyPath = Annotated[Path | None, typer.Option(help="What is explained unasked, what never.")]
LeaseSeconds = Annotated[
    float | None, typer.Option(help="Without a sign for so long, a worker's jobs run elsewhere.")
]
JobTimeLimitSeconds = Annotated[
    float | None, typer.Option(help="Longest time without progress before a job is killed.")
]
JobNiceness = Annotated[
    int | None, typer.Option(help="How much computing jobs give way to others: 0 (none) to 19.")
]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str) -> None:
    """A line of progress."""
    print(f"· {text}", file=sys.stderr, flush=True)  # noqa: T201 - this is the command line


def print_text(text: str) -> None:
    """A line of the result."""
    print(text, flush=True)  # noqa: T201


def print_json(document: object) -> None:
    """The result as one JSON document."""
    import orjson

    print_text(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())


def utc(day: datetime | None) -> datetime | None:
    """A day or time of the command line, which is in UTC."""
    return None if day is None else day.replace(tzinfo=UTC)
