"""NVIDIA's own client of the Open Inference Protocol against the service."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton
from live_app import LiveApp
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

Instance = dict[str, Any]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(live: LiveApp) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(urlsplit(live.url).netloc)
    yield client
    client.close()


def inputs_of(
    client: triton.InferenceServerClient, model: str, rows: list[Instance], *, binary: bool
) -> list[triton.InferInput]:
    """A tensor a column, as the model's metadata names them."""
    found = []
    for column in client.get_model_metadata(model)["inputs"]:
        cells = [row[column["name"]] for row in rows]
        cells = [np.nan if cell is None else cell for cell in cells]
        array = np.array(cells, triton_to_np_dtype(column["datatype"]))
        tensor = triton.InferInput(column["name"], list(array.shape), column["datatype"])
        found.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return found


def test_it_finds_the_service_its_models_and_their_versions(
    client: triton.InferenceServerClient,
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mixed")
    assert client.is_model_ready("mixed", "1")
    assert not client.is_model_ready("mixed", "2")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_it_reads_the_numbers_of_predict(
    live: LiveApp,
    client: triton.InferenceServerClient,
    mixed_rows: list[Instance],
    binary: bool,  # noqa: FBT001 (a parameter of the test)
    named: bool,  # noqa: FBT001
) -> None:
    whole = ("site", "texture") if not binary else ("site",)  # it cannot write NaN as JSON
    rows = [row for row in mixed_rows if all(row[name] is not None for name in whole)][:20]
    asked: dict[str, Any] = {"parameters": {"explain": True}}
    if named:
        names = ("label", "probabilities", "explain")
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        asked = {"outputs": outputs}
    request_id = f"triton-{binary}-{named}"
    inputs = inputs_of(client, "mixed", rows, binary=binary)
    result = client.infer(
        "mixed", inputs, request_id=request_id, headers=None if binary else JSON, **asked
    )
    answer = live.client().predict(rows, path="/models/mixed/predict").json()
    assert result.get_response()["id"] == request_id
    labels = [prediction["label"] for prediction in answer["predictions"]]
    scores = [[*prediction["probabilities"].values()] for prediction in answer["predictions"]]
    assert result.as_numpy("label").tolist() == labels
    assert result.as_numpy("probabilities").tolist() == scores
    explanation = answer["explanation"]
    assert result.as_numpy("shap_values").tolist() == explanation["values"]
    assert result.as_numpy("base_values").tolist() == explanation["base_values"]
    assert result.as_numpy("explained_outputs").tolist() == explanation["outputs"]
    record = live.client().get(f"/explanations/{request_id}").json()
    assert record["instances"] == rows


def test_it_shows_a_refusal_with_its_sentence(
    client: triton.InferenceServerClient, rows: list[Instance]
) -> None:
    inputs = inputs_of(client, "breast_cancer", rows[:1], binary=True)[1:]
    with pytest.raises(InferenceServerException, match="'mean radius' is missing") as refused:
        client.infer("breast_cancer", inputs)
    assert refused.value.status() == "422"
