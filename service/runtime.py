"""Everything with a lifetime, built once and handed down."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from service.auth import Authenticator
from service.delivery import Delivery
from service.evidence import EvidenceLog
from service.followup import FollowUps
from service.metrics import Metrics
from service.predicting import PredictService
from service.remote_metrics import JointRegistry
from service.serving import ServedModels
from service.settings import Settings
from service.views import Views
from service.watching import Watch

Exposed = CollectorRegistry | JointRegistry


@dataclass(slots=True, eq=False)
class Runtime:
    """What a running service consists of; `app.create_app` builds it in its lifespan."""

    settings: Settings
    metrics: Metrics
    exposed: Exposed
    """What /metrics shows: the metrics, and those of a worker of our own."""

    models: ServedModels
    evidence: EvidenceLog
    delivery: Delivery
    predicting: PredictService
    authenticator: Authenticator
    is_stopping: bool = False
    watch: Watch = field(init=False)
    follow_ups: FollowUps = field(init=False)
    views: Views = field(init=False)

    def __post_init__(self) -> None:
        self.delivery.is_stopping = lambda: self.is_stopping
        self.watch = Watch(self.evidence, self.delivery.queue, self.metrics)
        self.views = Views(self.models)
        predicting = self.predicting
        self.follow_ups = FollowUps(
            self.models, self.watch, self.delivery, predicting.keyring, predicting.quotas
        )
