"""What two versions say of themselves: outputs, schema, background, explainer, libraries."""

from collections.abc import Iterator

from schemas import Column
from service.gate.bounds import Bounds
from service.gate.findings import Finding, equal
from service.registry import RegisteredModel


def identity_findings(old: RegisteredModel, new: RegisteredModel, bounds: Bounds) -> list[Finding]:
    """What needs no row."""
    before, after = old.manifest, new.manifest
    return [
        equal("outputs", _outputs(old), _outputs(new)),
        _schema(old, new, is_required=bounds.same_schema),
        _background(old, new, is_required=bounds.same_background),
        equal("explainer", _explainer(old), _explainer(new), required=bounds.same_explainer),
        equal("libraries", before.artifact.library, after.artifact.library, required=False),
    ]


def _outputs(model: RegisteredModel) -> str:
    manifest = model.manifest
    classes = "" if manifest.classes is None else f" of {', '.join(map(str, manifest.classes))}"
    return f"{manifest.task}{classes} in {manifest.explainer.output_space}"


def _explainer(model: RegisteredModel) -> str:
    entry = model.manifest.explainer
    if entry.method is None:
        return "none"
    return f"{entry.method} {'exact' if model.is_exact else 'estimated'}"


def _background(old: RegisteredModel, new: RegisteredModel, *, is_required: bool) -> Finding:
    before, after = old.background, new.background
    if before.digest == after.digest:
        return Finding(
            "background", "pass", detail=f"{len(before.rows)} rows, {_short(before.digest)}"
        )
    detail = (
        f"{len(before.rows)} rows {_short(before.digest)} -> "
        f"{len(after.rows)} rows {_short(after.digest)}"
    )
    return Finding("background", "block" if is_required else "note", detail=detail)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _schema(old: RegisteredModel, new: RegisteredModel, *, is_required: bool) -> Finding:
    narrower, wider = schema_changes(old, new)
    if narrower:
        detail = "; ".join(narrower + wider)
        return Finding("schema", "block" if is_required else "note", detail=detail)
    if wider:
        return Finding("schema", "note", detail="; ".join(wider))
    return Finding("schema", "pass", detail=f"{len(old.schema.columns)} columns")


def schema_changes(old: RegisteredModel, new: RegisteredModel) -> tuple[list[str], list[str]]:
    """What requests the old version takes may break on, and what only allows more."""
    before = {column.name: column for column in old.schema.columns}
    after = {column.name: column for column in new.schema.columns}
    narrower = [f"{name!r} is gone" for name in before if name not in after]
    added = {name: column for name, column in after.items() if name not in before}
    narrower += [f"{name!r} is new and required" for name, c in added.items() if c.is_required]
    wider = [f"{name!r} is new" for name, column in added.items() if not column.is_required]
    for name in [name for name in before if name in after]:
        narrower += _narrower(before[name], after[name])
        wider += _wider(before[name], after[name])
    return narrower, wider


def _narrower(old: Column, new: Column) -> Iterator[str]:
    name = repr(old.name)
    if (old.kind, old.level_type) != (new.kind, new.level_type):
        yield f"{name} was {old.level_type or old.kind} and is {new.level_type or new.kind}"
        return
    lost = [level for level in old.levels or () if level not in (new.levels or ())]
    if lost and new.unknown == "refuse":
        yield f"{name} no longer takes {len(lost)} levels, the first one {lost[0]!r}"
    elif lost:
        yield f"{name} no longer knows {len(lost)} levels"
    if old.unknown != new.unknown:
        yield f"unknown levels of {name}: {old.unknown} -> {new.unknown}"
    if old.nullable and not new.nullable:
        yield f"{name} must not be missing any more"
    elif new.is_required and not old.is_required:
        yield f"{name} must be given now"
    if _tighter(old.minimum, new.minimum, 1) or _tighter(old.maximum, new.maximum, -1):
        yield f"{name} has tighter bounds"


def _wider(old: Column, new: Column) -> Iterator[str]:
    added = [level for level in new.levels or () if level not in (old.levels or ())]
    if added and old.kind == new.kind:
        yield f"{old.name!r} takes {len(added)} more levels"
    if new.nullable and not old.nullable:
        yield f"{old.name!r} may be missing"


def _tighter(old: float | None, new: float | None, sign: int) -> bool:
    return new is not None and (old is None or sign * new > sign * old)
