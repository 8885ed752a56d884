"""Other protocols in front of POST /predict: translation of requests and answers, nothing else."""

from service.facades.documents import Call, documented_calls
from service.facades.v1 import V1Request, v1_answer
from service.facades.v2 import Infer, read_infer
from service.facades.v2_answers import infer_answer
from service.facades.v2_metadata import model_metadata

__all__ = [
    "Call",
    "Infer",
    "V1Request",
    "documented_calls",
    "infer_answer",
    "model_metadata",
    "read_infer",
    "v1_answer",
]
