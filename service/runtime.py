"""Everything with a lifetime, built once and handed down."""

from dataclasses import dataclass, field
from datetime import timedelta

from prometheus_client import CollectorRegistry

from service.accesses import AccessLog
from service.auth import Authenticator
from service.delivery import Delivery
from service.drift.keeping import Keeper
from service.evidence import EvidenceLog
from service.followup import FollowUps
from service.importance import Importances
from service.ledger import Ledger, Sequencing
from service.metrics import Metrics
from service.predicting import PredictService
from service.recourse import RecourseService
from service.remote_metrics import JointRegistry
from service.replays import Replays
from service.serving import ServedModels
from service.settings import Settings
from service.views import Views
from service.votes import VoteBox
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
    ledger: Ledger
    sequencing: Sequencing | None = None
    """None where nobody keeps the log: in rehearsals."""

    drift: Keeper | None = None
    """None where nothing is counted, likewise."""

    is_draining: bool = False
    """Asked to end: /readyz says so, and requests are answered as before."""

    is_stopping: bool = False
    """Nothing more is taken; whoever waits for an explanation is told how far it is."""

    accesses: AccessLog = field(init=False)
    watch: Watch = field(init=False)
    follow_ups: FollowUps = field(init=False)
    views: Views = field(init=False)
    votes: VoteBox = field(init=False)
    importances: Importances = field(init=False)
    replays: Replays = field(init=False)
    recourse: RecourseService = field(init=False)

    def __post_init__(self) -> None:
        self.delivery.is_stopping = lambda: self.is_stopping
        self.accesses = AccessLog(self.evidence, self.predicting.keyring)
        self.watch = Watch(
            self.evidence,
            self.delivery.queue,
            self.metrics,
            self.accesses,
            self.predicting.quotas,
            key_backup=timedelta(days=self.settings.key_backup_days),
            admission=self.delivery.admission,
        )
        self.views = Views(self.models)
        predicting = self.predicting
        self.follow_ups = FollowUps(
            self.models, self.watch, self.delivery, predicting.keyring, predicting.quotas
        )
        self.votes = VoteBox(self.watch, self.views, self.metrics)
        keyring, k = self.predicting.keyring, self.settings.k_anonymity
        self.importances = Importances(self.evidence, keyring, k)
        self.replays = Replays(self.watch, self.views, self.settings)
        self.recourse = RecourseService(self.predicting, self.watch, self.views)
