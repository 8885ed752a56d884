"""Personal data in texts: found by shape and checksum, and blacked out before storing."""

from service.privacy.entities import ENTITIES, SURE, Entity
from service.privacy.request_ids import personal_in_id
from service.privacy.scanning import Finding, blacked_out, find
from service.privacy.screening import PersonalLevels, PrivacyCounts, Screening, takes_any_text

__all__ = [
    "ENTITIES",
    "SURE",
    "Entity",
    "Finding",
    "PersonalLevels",
    "PrivacyCounts",
    "Screening",
    "blacked_out",
    "find",
    "personal_in_id",
    "takes_any_text",
]
