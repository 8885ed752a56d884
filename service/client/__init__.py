"""The Python client: `Client` and `AsyncClient`, typed, over httpx.

It imports httpx, schemas and the standard library alone; shap, numpy and pandas only where an
explanation is turned into theirs.
"""

from service.client.asynchronous import AsyncClient
from service.client.calls import Prediction, StoredPrediction
from service.client.errors import (
    ClientError,
    ConflictError,
    GoneError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    NoValuesError,
    QuotaError,
    RefusedError,
    ServerError,
    StillPendingError,
    UnavailableError,
    UnreachableError,
    UnreadableAnswerError,
)
from service.client.explanation import Explanation
from service.client.sending import Repeats
from service.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ConflictError",
    "Explanation",
    "GoneError",
    "InvalidError",
    "NoValuesError",
    "NotAllowedError",
    "NotFoundError",
    "Prediction",
    "QuotaError",
    "RefusedError",
    "Repeats",
    "ServerError",
    "StillPendingError",
    "StoredPrediction",
    "UnavailableError",
    "UnreachableError",
    "UnreadableAnswerError",
]
