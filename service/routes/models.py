"""GET /models and GET /models/{name}."""

import asyncio
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from schemas import ModelInfo, ModelList
from service.auth import NAME, Caller
from service.deps import RuntimeDep, requires
from service.runtime import Runtime
from service.serving import ServedModel

router = APIRouter(prefix="/models", tags=["models"])
ModelName = Annotated[str, Path(json_schema_extra={"pattern": f"^{NAME.pattern}$"})]
Predicting = Annotated[Caller, Depends(requires("predict"))]


@router.get("", response_model=ModelList)
async def list_models(runtime: RuntimeDep, _: Predicting) -> Response:
    """Every served model."""
    items = [await _info(runtime, served) for served in runtime.models.all.values()]
    return Response(orjson.dumps({"items": items}), media_type="application/json")


@router.get("/{name}", response_model=ModelInfo)
async def show_model(name: ModelName, runtime: RuntimeDep, _: Predicting) -> Response:
    """One served model, with a sample request that works."""
    info = await _info(runtime, runtime.models.resolve(name))
    return Response(orjson.dumps(info), media_type="application/json")


async def _info(runtime: Runtime, served: ServedModel) -> dict[str, object]:
    versions = await asyncio.to_thread(runtime.models.registry.layout.versions, served.model.name)
    return model_info(served, versions)


def model_info(served: ServedModel, versions: list[int]) -> dict[str, object]:
    """What an application needs to call the model."""
    model = served.model
    manifest = model.manifest
    explains = manifest.explainer.method is not None
    return {
        "name": model.name,
        "serving_version": model.version,
        "versions": versions,
        "task": manifest.task,
        "json_schema": model.schema.to_json(),
        "output_space": manifest.explainer.output_space,
        "method": manifest.explainer.method,
        "cost_seconds_per_instance": manifest.cost.explain_row if explains else None,
        "sample_request": {"instances": [model.sample]},
    }
