"""Where a record's numbers come from: what an auditor needs to find all of it again."""

from dataclasses import dataclass

from service.evidence import HeaderConstants
from service.registry import RegisteredModel
from service.registry.libraries import (
    git_revision,
    installed_libraries,
    service_version,
    software,
)


@dataclass(frozen=True, slots=True)
class Taken:
    """Who computed a queued explanation: which delivery of its job it was, 1 for the first, and how
    long the job had been queued by then.
    """

    worker: str
    attempt: int
    queue_seconds: float


def provenance_of(model: RegisteredModel, *, config_digest: str | None = None) -> dict[str, object]:
    """Digests and versions an auditor needs to find this model, schema and background again.

    config_digest: of a method other than the version's own.
    """
    manifest = model.manifest
    return {
        "model_digest": model.digest,
        "artifact_digest": manifest.artifact.digest,
        "schema_digest": manifest.schema_digest,
        "background_digest": manifest.background.digest,
        "explainer_config_digest": config_digest or manifest.explainer.config_digest,
        **software(),
    }


def header_constants(  # noqa: PLR0913  # what differs between the headers of one version
    model: RegisteredModel,
    *,
    method: str | None,
    engine: str | None,
    is_exact: bool | None,
    policy_version: str | None,
    retention_class: str,
    config_digest: str | None = None,
) -> HeaderConstants:
    """What the headers of a version's decisions, or explanations by one method, have in common.

    config_digest: of a method other than the version's own.
    """
    manifest = model.manifest
    explainer, artifact = manifest.explainer, manifest.artifact
    return HeaderConstants(
        service_version=service_version(),
        git_revision=git_revision(),
        policy_version=policy_version,
        retention_class=retention_class,
        model=manifest.name,
        version=manifest.version,
        model_digest=model.digest,
        artifact_digest=artifact.digest,
        artifact_format=artifact.format,
        schema_digest=manifest.schema_digest,
        feature_names_digest=manifest.feature_names_digest,
        category_maps_digest=manifest.category_map_digest,
        trees_used=artifact.trees_used,
        library_versions=installed_libraries(),
        method=method,
        engine=engine,
        config_digest=config_digest or explainer.config_digest,
        background_digest=manifest.background.digest,
        output_space=explainer.output_space,
        link=explainer.link,
        exact=is_exact,
    )
