"""Messages of the Open Inference Protocol V2 over HTTP, and of KServe V1."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from schemas.messages import ModelReference, Prediction, RowWarning

Datatype = Literal[
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP32",
    "FP64",
    "BYTES",
]
"""What a table's columns need of the protocol's; FP16 and BF16 are refused."""

Parameters = dict[str, StrictBool | StrictInt | StrictFloat | StrictStr]
Size = Annotated[int, Field(ge=0)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class InputTensor(_Message):
    """One column as [N] or [N, 1], or all columns in schema order as [N, F]; null is missing.

    Without data its bytes follow the JSON document: the binary tensor data extension.
    """

    name: str
    shape: Annotated[list[Size], Field(min_length=1, max_length=2)]
    datatype: Datatype
    parameters: Parameters = {}
    data: list[Any] | None = None


class RequestedOutput(_Message):
    """An output that the answer is to hold; `explain` stands for all tensors of an explanation."""

    name: str
    parameters: Parameters = {}


class InferRequest(_Message):
    """The body of POST /v2/models/{name}/infer. id: the request ID, one's own; model_name: what
    some clients repeat of the path, which decides.
    """

    model_config = ConfigDict(protected_namespaces=())

    id: str = ""
    model_name: str | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1)]
    outputs: list[RequestedOutput] = []
    parameters: Parameters = {}


class OutputTensor(_Message):
    """One output; null where this caller may not see a number."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: Parameters = {}
    data: list[Any] | None = None


class InferResponse(_Message):
    """The answer to it. What is said of the explanation as a whole is in parameters."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str
    parameters: Parameters
    outputs: list[OutputTensor]


class TensorMetadata(_Message):
    """A tensor of a model; -1 is any number of instances."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(_Message):
    """GET /v2/models/{name}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(_Message):
    """GET /v2."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(_Message):
    """GET /v2/health/live."""

    live: bool


class ServerReady(_Message):
    """GET /v2/health/ready."""

    ready: bool


class ModelReady(_Message):
    """Whether a model answers: GET /v2/models/{name}/ready and GET /v1/models/{name}."""

    name: str
    ready: bool


class ModelNames(_Message):
    """GET /v1/models."""

    models: list[str]


class ProtocolError(_Message):
    """What both protocols say when they refuse."""

    error: str


class V1Answer(_Message):
    """The answer to POST /v1/models/{name}:predict; the predictions are those of /predict."""

    predictions: list[Prediction]
    request_id: str
    model: ModelReference
    warnings: list[RowWarning] | None


class V1Explained(V1Answer):
    """The answer to POST /v1/models/{name}:explain: per instance what /predict explains by arrays
    over all instances, null unless complete; and what it says of all of them together.
    """

    explanations: list[dict[str, Any]] | None
    explanation: dict[str, Any]
