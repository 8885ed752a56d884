"""Where a record's numbers come from: what an auditor needs to find all of it again."""

from dataclasses import dataclass

from service.registry import RegisteredModel
from service.registry.libraries import software


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
