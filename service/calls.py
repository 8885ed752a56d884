"""A request to predict as transports understand it, and what they answer."""

from typing import NamedTuple

from service.auth import Caller
from service.prefer import NO_PREFERENCE, Preference


class PredictCall(NamedTuple):
    """One POST /predict as the transport understood it; is_id_chosen: by the client, so that the
    request may be a repetition.
    """

    model: str | None
    body: bytes
    explain: bool
    top: int | None
    request_id: str
    is_id_chosen: bool
    caller: Caller
    trace_id: str | None = None
    preference: Preference = NO_PREFERENCE


class PredictReply(NamedTuple):
    """The answer's bytes; a replay is the first answer's, with no counter moved.

    timings: seconds of each of PHASES; of nothing in a replay. is_pending: the explanation comes
    later; is_heeded: a worker was asked for it, so that a preference to wait for one counted.
    evidence: where the record is: stored, spooled or none.
    """

    body: bytes
    is_replay: bool
    timings: tuple[float, ...] = ()
    is_pending: bool = False
    is_heeded: bool = False
    evidence: str = "stored"
