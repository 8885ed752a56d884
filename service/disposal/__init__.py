"""What becomes of records after they are made: held, erased, purged, put in quarantine."""

from service.disposal.destroying import Destruction
from service.disposal.erasing import Erasing, erase, survey
from service.disposal.facts import REASON, Order
from service.disposal.forgetting import Keys, forget, forget_keys
from service.disposal.holding import Holding, StandingHold, hold, release, standing_holds
from service.disposal.purging import PURGE_GRACE, Purge, purge, survey_purge
from service.disposal.refusing import check_not_expired, refusal_of, unrepeatable
from service.disposal.targets import of_model, of_requests, of_subject

__all__ = [
    "PURGE_GRACE",
    "REASON",
    "Destruction",
    "Erasing",
    "Holding",
    "Keys",
    "Order",
    "Purge",
    "StandingHold",
    "check_not_expired",
    "erase",
    "forget",
    "forget_keys",
    "hold",
    "of_model",
    "of_requests",
    "of_subject",
    "purge",
    "refusal_of",
    "release",
    "standing_holds",
    "survey",
    "survey_purge",
    "unrepeatable",
]
