"""Everything with a lifetime, built once and handed down."""

from dataclasses import dataclass

from service.auth import Authenticator
from service.delivery import Delivery
from service.evidence import EvidenceLog
from service.metrics import Metrics
from service.predicting import PredictService
from service.serving import ServedModels
from service.settings import Settings


@dataclass(slots=True, eq=False)
class Runtime:
    """What a running service consists of; `app.create_app` builds it in its lifespan."""

    settings: Settings
    metrics: Metrics
    models: ServedModels
    evidence: EvidenceLog
    delivery: Delivery
    predicting: PredictService
    authenticator: Authenticator
    is_stopping: bool = False
