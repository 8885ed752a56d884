"""A version's frozen baseline, read from the registry."""

from dataclasses import dataclass

import orjson

from service.drift.bins import LAYOUT, Bins, Tally
from service.drift.comparing import Names
from service.registry.described import describe_version
from service.registry.errors import DamagedVersionError
from service.registry.layout import Layout, sha256_of
from service.registry.naming import class_text

FILE = "baseline.json"
BEFORE_ATTRIBUTIONS = "it was registered before baselines held attributions; register it anew"


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """What the rows of one version are compared with. without_attributions: why there are none."""

    model: str
    version: int
    digest: str
    """Short; windows counted in other bins, or in another layout, have another."""

    bins: Bins
    names: Names
    reference: Tally
    without_attributions: str | None

    @classmethod
    def read(cls, layout: Layout, name: str, version: int) -> "Baseline":
        """Cost: a millisecond. Raises UnknownError, DamagedVersionError."""
        known = describe_version(layout, name, version)
        path = layout.folder(name, version) / FILE
        try:
            data = path.read_bytes()
            entry = known.manifest.files[FILE]
            if sha256_of(data) != entry.sha256:
                raise DamagedVersionError(f"{path} is not the file that was registered")
            document = orjson.loads(data)
            bins = Bins.of(known.schema, document)
            reference = bins.reference(document)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedVersionError(f"{path}: {error!r}") from error
        classes = known.manifest.classes
        names = Names(
            known.schema.names,
            tuple(column.source for column in known.schema.columns),
            ("value",) if classes is None else tuple(map(class_text, classes)),
            known.manifest.explainer.output_names,
        )
        reason = document.get("without_attributions", BEFORE_ATTRIBUTIONS)
        short = sha256_of(b"%d/%s" % (LAYOUT, data)).removeprefix("sha256:")[:16]
        return cls(name, version, short, bins, names, reference, reason)
