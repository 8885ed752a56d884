"""`explaind card`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    RegistryDir,
    print_json,
    print_text,
    say,
)

if TYPE_CHECKING:
    from service.cards import Card
    from service.registry.described import DescribedVersion
    from service.registry.layout import Layout
    from service.settings import Settings

Name = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int | None, typer.Option(help="Default: the one that serves.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="SECTION=FILE, Markdown; an empty file removes it. Repeatable."),
]
Confirm = Annotated[
    bool, typer.Option("--confirm", help="What is written holds for this version too.")
]


def card(
    name: Name,
    version: Version = None,
    written: Set = None,
    confirm: Confirm = False,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a model's card as it is now, or write its sections: intended_use, out_of_scope, ethics
    and owner.
    """
    from service.logs import configure_logs
    from service.settings import Settings

    configure_logs(level="WARNING")
    settings = Settings.load(data_dir=data_dir, registry=registry, database_url=database_url)
    layout, known = _version(settings, name, version)
    if written or confirm:
        _write(layout, known, written or [], is_confirmed=confirm)
        return
    found = _read(settings, layout, known)
    if as_json:
        print_json(found.to_json())
    else:
        from service.card_page import card_markdown

        print_text(card_markdown(found).rstrip())


def _version(
    settings: "Settings", name: str, version: int | None
) -> "tuple[Layout, DescribedVersion]":
    from service.errors import UnknownError
    from service.registry.described import describe_version
    from service.registry.layout import Layout

    layout = Layout(settings.registry)
    number = version or layout.serving(name)
    if number is None:
        raise UnknownError(f"no model {name!r} is registered in {layout.root}")
    return layout, describe_version(layout, name, number)


def _write(
    layout: "Layout", known: "DescribedVersion", written: list[str], *, is_confirmed: bool
) -> None:
    from service.registry.sections import confirm_sections, write_section

    texts = [_text(each) for each in written]
    version = known.manifest.version
    for section, text in texts:
        write_section(layout, known, section, text)
        say(f"{section} is written for version {version}" if text else f"{section} is removed")
    if is_confirmed:
        confirmed = ", ".join(confirm_sections(layout, known)) or "nothing: no section is written"
        say(f"confirmed for version {version}: {confirmed}")


def _text(option: str) -> tuple[str, str]:
    from service.errors import InvalidInputError, UsageError

    section, separator, file = option.partition("=")
    if not separator:
        raise UsageError(f"--set takes SECTION=FILE, not {option!r}")
    try:
        return section.strip(), Path(file).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file} is not UTF-8 text") from error
    except OSError as error:
        raise InvalidInputError(f"{file}: {error.strerror}") from error


def _read(settings: "Settings", layout: "Layout", known: "DescribedVersion") -> "Card":
    """With what the evidence database says, where there is one; none is made for it."""
    from service.cards import read_card
    from service.evidence.engines import database_url
    from service.storing import evidence_store

    manifest = known.manifest
    address = database_url(settings.database_url)
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).exists():
        return read_card(layout, manifest.name, manifest.version, settings, None)
    with evidence_store(settings) as store:
        return read_card(layout, manifest.name, manifest.version, settings, store)
