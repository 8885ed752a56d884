"""What the OpenAPI document says of the protocols' calls that the models decide on."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from schemas import document_schema
from schemas.inference import InferRequest, InferResponse, V1Answer, V1Explained
from service.facades.v2_metadata import OF_KIND
from service.registry import RegisteredModel

V1_TAG, V2_TAG = "KServe V1", "Open Inference Protocol V2"
V1_TEXT = "An instance may also be a list of its values in the order of the columns."
V2_TEXT = (
    "A tensor a column, or one over all columns in their order. An output named `explain`, or the "
    "parameter `explain`, asks for attributions. `id` is the request ID. The binary tensor data "
    "extension is spoken both ways."
)

V1_VERBS: dict[str, type[V1Answer]] = {"predict": V1Answer, "explain": V1Explained}


class Call(NamedTuple):
    """One operation; request and answer are JSON Schemas."""

    path: str
    tag: str
    summary: str
    description: str
    request: dict[str, Any]
    answer: dict[str, object]
    example: dict[str, object]
    scopes: tuple[str, ...] = ("predict",)
    version: int | None = None
    """Set where the path names it."""


def documented_calls(model: RegisteredModel, instances: dict[str, Any]) -> Iterator[Call]:
    """All of one model. instances: the schema of the body of POST /predict."""
    rows: dict[str, object] = {"instances": [dict(model.sample)]}
    title = f"{model.name} version {model.version}"
    for verb, answer in V1_VERBS.items():
        yield Call(
            path=f"/v1/models/{model.name}:{verb}",
            tag=V1_TAG,
            summary=f"{verb.capitalize()} with {title}",
            description=V1_TEXT,
            request=instances,
            answer=document_schema(answer),
            example=rows,
            scopes=tuple(dict.fromkeys(("predict", verb))),
        )
    versions = {"": None, "/versions/{version}": model.version}
    for infix, version in versions.items():
        yield Call(
            path=f"/v2/models/{model.name}{infix}/infer",
            tag=V2_TAG,
            summary=f"Infer with {title}",
            description=V2_TEXT,
            request=document_schema(InferRequest),
            answer=document_schema(InferResponse),
            example=_tensors(model),
            version=version,
        )


def _tensors(model: RegisteredModel) -> dict[str, object]:
    inputs = [
        {
            "name": column.name,
            "shape": [1],
            "datatype": OF_KIND[column.level_type or column.kind],
            "data": [model.sample.get(column.name)],
        }
        for column in model.schema.columns
    ]
    prediction = "value" if model.manifest.classes is None else "label"
    return {"inputs": inputs, "outputs": [{"name": prediction}, {"name": "explain"}]}
