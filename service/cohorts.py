"""Reference cohorts: rows that reasons are relative to, in place of the version's background."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic

import numpy as np

from explainers.base import Background, Explainer, FloatArray
from explainers.tree.explainer import TreeExplainer
from service.errors import CommandError, InvalidInputError
from service.logs import log
from service.policy import CohortTable, PolicyError, PolicyFile, ReasonsRule
from service.registry import RegisteredModel
from service.registry.inference import admitted_rows
from service.registry.tables import encode_frame, read_frame

MOST_ROWS = 1000
MOST_BYTES = 64 << 20
KEPT = 8
MISSED_SECONDS = 60.0
"""So long a cohort that was not at hand is not looked for again: each look reads its files."""


def cohort_of(file: PolicyFile, model: str) -> CohortTable | None:
    """The one the file names for a model."""
    table = file.section(model).reasons
    return None if table is None else table.cohort


def check_explained(rule: ReasonsRule, model: RegisteredModel) -> None:
    """PolicyError where the version has no contributions to the output that the decision is by, or
    none relative to a cohort.
    """
    explainer = model.manifest.explainer
    if explainer.method is None:
        raise PolicyError(f"version {model.version} cannot be explained: {explainer.reason}")
    if rule.output not in explainer.output_names:
        raise PolicyError(f"version {model.version} explains no output {rule.output!r}")
    if rule.cohort_digest is not None and not model.runs_inline:
        raise PolicyError(
            f"cohort: version {model.version} is explained by calling it ({explainer.method}), and "
            "a cohort needs trees or a linear model; without one reasons are relative to its "
            "background"
        )


def cohort_explainer(folder: Path, table: CohortTable, model: RegisteredModel) -> Explainer:
    """The version's explainer over the cohort instead of its background.

    By tables where the version has them, since many rows may be explained by it. Cost: reading
    the file (pandas), and 20 ms for 100 trees of depth 6. Raises PolicyError.
    """
    own = model.explainer
    assert own is not None  # `check_explained`
    try:
        background = Background(_rows(folder / table.file, table.digest, model), table.digest)
    except InvalidInputError as error:
        raise PolicyError(f"cohort: {error}") from None
    if isinstance(own, TreeExplainer) and own.engine == "table":
        return own.against(background, engine="auto")
    return own.against(background)


def _rows(path: Path, digest: str, model: RegisteredModel) -> FloatArray:
    """(B, F) rows in the version's coding; other columns of the file are not read."""
    _check_digest(path, digest)
    schema = model.schema
    texts = [column.name for column in schema.columns if column.level_type == "string"]
    frame = read_frame(path, text_columns=texts)
    _check_digest(path, digest)  # what was read is what is pinned
    if not 0 < len(frame) <= MOST_ROWS:
        raise InvalidInputError(f"{path} has {len(frame)} rows; a cohort has 1 to {MOST_ROWS}")
    unknown = {column.name: column.unknown for column in schema.columns}
    rows = encode_frame(frame, model.native.columns.raw, unknown=unknown)
    refused = np.flatnonzero(~admitted_rows(schema, rows))
    if len(refused):
        raise InvalidInputError(f"{path}: the model's schema refuses row {int(refused[0]) + 1}")
    return rows


def _check_digest(path: Path, digest: str) -> None:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidInputError(f"{path} is larger than {MOST_BYTES} bytes")
        found = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}") from None
    if found != digest:
        raise InvalidInputError(f"{path} has the digest {found}, not {digest}")


@dataclass(slots=True, eq=False)
class Cohorts:
    """The cohorts of the policy file at hand, for whoever works from records and not by policy.

    path: of the policy file, None without one. Keeps the last few.
    """

    path: Path | None
    clock: Callable[[], float] = monotonic
    _kept: OrderedDict[tuple[str, str], Explainer] = field(default_factory=OrderedDict)
    _missed: dict[tuple[str, str], float] = field(default_factory=dict)

    def of(self, model: RegisteredModel, rule: ReasonsRule) -> Explainer | None:
        """What explains relative to the rule's cohort; None where it has none, or where its file
        is not at hand any more, which is logged.
        """
        digest = rule.cohort_digest
        if digest is None:
            return None
        key = (model.digest, digest)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if self.clock() < self._missed.get(key, -inf):
            return None
        try:
            self._kept[key] = self._made(model, rule, digest)
        except (CommandError, PolicyError) as error:
            log.error("cohort_not_here", model=model.name, digest=digest, reason=str(error))
            self._missed[key] = self.clock() + MISSED_SECONDS
            return None
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _made(self, model: RegisteredModel, rule: ReasonsRule, digest: str) -> Explainer:
        check_explained(rule, model)
        if self.path is None:
            raise PolicyError("no policy file is set here")
        table = cohort_of(PolicyFile.read(self.path), model.name)
        if table is None or table.digest != digest:
            raise PolicyError("the policy file here names another cohort, or none")
        return cohort_explainer(self.path.parent, table, model)

    def policy_version(self) -> str | None:
        """Of the policy file at hand, None where it cannot be read."""
        try:
            return None if self.path is None else PolicyFile.read(self.path).version
        except CommandError:
            return None


NO_COHORTS = Cohorts(None)
"""Of whoever has no policy file."""
