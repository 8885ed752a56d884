"""The shapes on the wire: a model's input schema, strict request bodies, answers, problems."""

from schemas.cards import ModelCard
from schemas.definitive import MAX_SUBJECT_LENGTH, Row
from schemas.documents import read_answer, read_document
from schemas.importance import ColumnImportance
from schemas.messages import (
    REQUEST_ID_PATTERN,
    Accepted,
    Answer,
    ClassPrediction,
    ExplainRequest,
    ExplanationBody,
    Method,
    ModelInfo,
    ModelList,
    ModelReference,
    PredictRequest,
    Provenance,
    Record,
    RecordPage,
    RecordSummary,
    ReviewSample,
    RowWarning,
    ValuePrediction,
)
from schemas.model_schema import Column, Level, ModelSchema, SchemaError
from schemas.narratives import Narrated
from schemas.openapi import answer_schema, document_schema, predict_request_schema
from schemas.problem import InvalidContentError, Problem, Violation, json_pointer
from schemas.proofs import Consistency, Proof, ProvenEvent
from schemas.replayed import Replay
from schemas.rows import DecodedBody, RowCodec, SeenRanges
from schemas.strict_json import NotStrictJsonError
from schemas.votes import Feedback, GivenFeedback, GivenLabels, Labels, Votes

__all__ = [
    "MAX_SUBJECT_LENGTH",
    "REQUEST_ID_PATTERN",
    "Accepted",
    "Answer",
    "ClassPrediction",
    "Column",
    "ColumnImportance",
    "Consistency",
    "DecodedBody",
    "ExplainRequest",
    "ExplanationBody",
    "Feedback",
    "GivenFeedback",
    "GivenLabels",
    "InvalidContentError",
    "Labels",
    "Level",
    "Method",
    "ModelCard",
    "ModelInfo",
    "ModelList",
    "ModelReference",
    "ModelSchema",
    "Narrated",
    "NotStrictJsonError",
    "PredictRequest",
    "Problem",
    "Proof",
    "ProvenEvent",
    "Provenance",
    "Record",
    "RecordPage",
    "RecordSummary",
    "Replay",
    "ReviewSample",
    "Row",
    "RowCodec",
    "RowWarning",
    "SchemaError",
    "SeenRanges",
    "ValuePrediction",
    "Violation",
    "Votes",
    "answer_schema",
    "document_schema",
    "json_pointer",
    "predict_request_schema",
    "read_answer",
    "read_document",
]
