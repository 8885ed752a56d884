"""A version as it is described on disk: what it is called and how it is explained, not loaded."""

from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from schemas import ModelSchema, SchemaError
from service.registry.errors import DamagedVersionError
from service.registry.layout import MANIFEST, Layout, sha256_of
from service.registry.manifest import Manifest

SCHEMA = "schema.json"


class KnownVersion(Protocol):
    """A version, loaded or only described."""

    @property
    def manifest(self) -> Manifest:
        """What it says of itself."""
        ...

    @property
    def digest(self) -> str:
        """Of the manifest, which names every other digest."""
        ...

    @property
    def schema(self) -> ModelSchema:
        """Its input columns."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DescribedVersion:
    """A KnownVersion without its model: reading it costs a millisecond instead of seconds."""

    manifest: Manifest
    digest: str
    schema: ModelSchema


def describe_version(layout: Layout, name: str, version: int) -> DescribedVersion:
    """Read the manifest and the schema it names, whose digests are checked.

    Raises UnknownError for a version that is not there, DamagedVersionError.
    """
    folder = layout.folder(name, version)
    try:
        manifest_bytes, schema_bytes = ((folder / file).read_bytes() for file in (MANIFEST, SCHEMA))
        manifest = Manifest.model_validate_json(manifest_bytes)
        if sha256_of(schema_bytes) != manifest.files[SCHEMA].sha256:
            raise DamagedVersionError(f"{folder / SCHEMA} is not the file that was registered")
        return DescribedVersion(
            manifest, sha256_of(manifest_bytes), ModelSchema.from_json(schema_bytes)
        )
    except (OSError, ValidationError, KeyError, SchemaError) as error:
        raise DamagedVersionError(f"{folder}: {error!r}") from error
