"""The Open Inference Protocol V2: what a model takes and gives."""

from collections.abc import Iterator, Mapping

from schemas import Column
from schemas.inference import Datatype
from service.facades.v2_answers import LABEL_TYPES
from service.registry import RegisteredModel

ANY = -1
OF_KIND: Mapping[str, Datatype] = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "string": "BYTES",
}
EXTENSIONS = ("binary_tensor_data",)
ROWS, FEATURES, OUTPUTS = "rows", "features", "outputs"
EXPLANATION = {
    "shap_values": (ROWS, FEATURES, OUTPUTS),
    "base_values": (ROWS, OUTPUTS),
    "explained_outputs": (ROWS, OUTPUTS),
    "additivity_error": (ROWS,),
}


def model_metadata(model: RegisteredModel) -> dict[str, object]:
    """GET /v2/models/{name}: a tensor a column; -1 is any number of instances."""
    return {
        "name": model.name,
        "versions": [str(model.version)],
        "platform": model.manifest.artifact.format,
        "inputs": [_tensor(column.name, _datatype(column), ANY) for column in model.schema.columns],
        "outputs": list(_outputs(model)),
    }


def _datatype(column: Column) -> Datatype:
    return OF_KIND[column.level_type or column.kind]


def _outputs(model: RegisteredModel) -> Iterator[dict[str, object]]:
    classes = model.manifest.classes
    if classes is None:
        yield _tensor("value", "FP64", ANY)
    else:
        yield _tensor("label", LABEL_TYPES[type(classes[0])], ANY)
        yield _tensor("probabilities", "FP64", ANY, len(classes))
        yield _tensor("classes", "BYTES", len(classes))
    explainer = model.manifest.explainer
    if explainer.method is None:
        return
    sizes = {ROWS: ANY, FEATURES: len(model.schema.names), OUTPUTS: len(explainer.output_names)}
    for name, axes in EXPLANATION.items():
        yield _tensor(name, "FP64", *(sizes[axis] for axis in axes))
    yield _tensor("feature_names", "BYTES", sizes[FEATURES])
    yield _tensor("output_names", "BYTES", sizes[OUTPUTS])


def _tensor(name: str, datatype: Datatype, *shape: int) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape}
