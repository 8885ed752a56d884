"""Records of PyTorch's models replayed in another process, by every method that explains them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from live_app import LiveApp, live_app
from recorded import one_digit_off, recorded_in, replayed_here
from servers import JSON, Client, wait_until
from tables import instances_of

pytest.importorskip("torch", reason="PyTorch is no locked package; .ci/run installs it")

from exported_networks import CLASSES, network

from service.registry import Registry
from service.registry.work import Options

SHAPES: Mapping[str, dict[str, int]] = {"net": {}, "wide_net": {"columns": 14, "width": 256}}
"""One is enumerated, one is sampled."""

METHODS = {
    "permutation": "values",
    "kernel": "values",
    "interactions": "interactions",
    "lime": "local_model",
    "integrated_gradients": "path",
}
"""By method, the member of an explanation that holds its numbers."""


def register(registry: Path, name: str, *, strength: float = 1.0) -> None:
    program, X, y = network(**SHAPES[name], strength=strength)
    options = Options(background_rows=20, classes=CLASSES)
    Registry(registry).register(name, program, X, y, options=options)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    data_dir = tmp_path_factory.mktemp("replay-torch")
    for name in SHAPES:
        register(data_dir / "registry", name)
    with live_app(data_dir, model="net", embedded_workers=1) as live:
        yield live


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    registry = tmp_path_factory.mktemp("other-weights") / "registry"
    register(registry, "net", strength=1.01)
    return registry


@pytest.fixture
def client(live: LiveApp) -> Client:
    return live.client()


def explained(client: Client, name: str, method: str | None) -> str:
    """The request ID of two rows' complete explanation, by a method if one is named."""
    instances = instances_of(network(**SHAPES[name])[1].iloc[5:7])
    query = "?explain=true" if method is None else ""
    reply = client.predict(instances, path=f"/models/{name}/predict", query=query)
    request_id: str = reply.json()["request_id"]
    if method is not None:
        body = json.dumps({"request_id": request_id, "method": method}).encode()
        reply = client.request("POST", "/explanations", body, JSON)
        assert reply.status == 202, reply.body
        request_id = reply.json()["request_id"]

    def status() -> str:
        record = client.get(f"/explanations/{request_id}", Prefer="wait=5").json()
        found: str = record["explanation"]["status"]
        return found

    wait_until(lambda: status() != "pending", seconds=120)
    assert status() == "complete"
    return request_id


@pytest.mark.parametrize("method", [None, "integrated_gradients"])
def test_the_service_computes_the_same_bytes_again(client: Client, method: str | None) -> None:
    request_id = explained(client, "net", method)
    report = client.request("POST", f"/explanations/{request_id}/replay", b"", JSON).json()
    assert report["equal"], report
    assert report["explanation"]["equal"]
    assert report["recorded"]["torch"] == report["running"]["torch"]


@pytest.mark.parametrize("method", [None, *METHODS])
def test_what_a_worker_sampled_comes_out_the_same_in_another_process(
    live: LiveApp, client: Client, method: str | None
) -> None:
    data_dir = live.runtime.settings.data_dir
    report = replayed_here(data_dir, recorded_in(data_dir, explained(client, "wide_net", method)))
    assert report["equal"], report
    assert report["explanation"]["equal"]


@pytest.mark.parametrize("method", [None, "permutation", "lime", "integrated_gradients"])
def test_another_digit_or_other_weights_are_a_gap(
    live: LiveApp, client: Client, other_weights: Path, method: str | None
) -> None:
    data_dir = live.runtime.settings.data_dir
    recorded = recorded_in(data_dir, explained(client, "net", method))
    assert replayed_here(data_dir, recorded)["equal"]
    member = METHODS.get(method or "", "values")
    report = replayed_here(data_dir, one_digit_off(recorded, member, "explanation"))
    assert (report["equal"], report["differing_digests"]) == (False, [])
    gap = report["explanation"]["largest_gap"]
    assert gap["pointer"].startswith(f"/{member}/")
    assert gap["absolute"] > 0
    assert report["explanation"]["others"] == []
    report = replayed_here(data_dir, recorded, other_weights)
    assert not report["equal"]
    assert {"model_digest", "artifact_digest"} <= set(report["differing_digests"])
    assert report["predictions"]["largest_gap"]["absolute"] > 1e-6
    assert report["explanation"]["largest_gap"]["absolute"] > 1e-6


def test_where_rows_lie_in_memory_changes_no_bit() -> None:
    """What a process could have otherwise than the one that recorded."""
    import numpy as np
    import torch

    from service.models.formats import artifact_of_model, load_model

    program, X, _ = network(**SHAPES["wide_net"])
    native: Any = load_model(artifact_of_model(program))
    assert torch.get_num_threads() == 1
    rows = X.to_numpy()[:300].astype(np.float64)
    for part in (lambda x: native.predict(x).scores, native.evaluate, native.gradient):
        expected = part(rows).tobytes()
        for offset in (8, 16, 40):
            raw = np.empty(rows.nbytes + offset, np.uint8)[offset:]
            moved = raw.view(np.float64).reshape(rows.shape)
            moved[:] = rows
            assert part(moved).tobytes() == expected
