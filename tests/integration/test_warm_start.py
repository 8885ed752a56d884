"""What a request needs is there before the first one comes, and nothing shows that it was tried."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import first_request
import pytest
from counted import total
from live_app import LiveApp, live_app
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.testing import capture_logs

from service import app as application
from service.rehearsal import TURNS, rehearse
from service.runtime import Runtime


@pytest.fixture
def several(tmp_path: Path, two_models: Path) -> Path:
    """A data directory of its own with `breast_cancer` and `mixed`."""
    shutil.copytree(two_models, tmp_path / "registry")
    return tmp_path


@pytest.fixture
def live(several: Path) -> Iterator[LiveApp]:
    with live_app(several) as live:
        yield live


def brought_by_first_requests(data_dir: Path, *options: str) -> dict[str, list[str]]:
    program = Path(first_request.__file__)
    command = [sys.executable, program.name, str(data_dir), *options]
    done = subprocess.run(
        command, cwd=program.parent, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    brought: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return brought


def test_the_first_requests_import_and_compile_nothing(several: Path) -> None:
    assert brought_by_first_requests(several) == {"modules": [], "kernels": []}


@pytest.mark.drill
def test_what_a_first_request_imports_or_compiles_is_noticed(several: Path) -> None:
    brought = brought_by_first_requests(several, "late")
    assert "wave" in brought["modules"]
    assert brought["kernels"][0].startswith("logistic_float32 (Array(float64")


class Recorded:
    """The twin of the application, and what it answered: path, query and status."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, bytes, int]] = []
        self.twins: list[Runtime] = []

    def assemble(self, runtime: Runtime) -> ASGIApp:
        self.twins.append(runtime)
        app = application._application_of(runtime)

        async def recording(scope: Scope, receive: Receive, send: Send) -> None:
            async def note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answer = scope["path"], scope["query_string"], message["status"]
                    self.answers.append(answer)
                await send(message)

            await app(scope, receive, note)

        return recording


async def test_every_model_answers_with_and_without_explanation(live: LiveApp) -> None:
    recorded = Recorded()
    await rehearse(live.runtime, recorded.assemble)
    assert set(recorded.answers) == {
        (f"/models/{name}/predict", query, 200)
        for name in ("breast_cancer", "mixed")
        for query in (b"explain=true", b"")
    }
    (twin,) = recorded.twins
    explained = sum(
        total(twin.metrics.explanations.labels(name, "serving", "inline", "served"))
        for name in twin.models.all
    )
    assert explained == len(recorded.answers) / 2
    assert len(recorded.answers) <= 2 * 2 * TURNS


def test_no_record_and_no_metric_tells_of_it(live: LiveApp) -> None:
    client = live.client()
    assert client.get("/explanations").json()["items"] == []
    lines = client.get("/metrics").body.decode().splitlines()
    counted = [line for line in lines if line.startswith(("explain_predictions_total", "http_"))]
    assert counted
    assert all(line.endswith(" 0.0") for line in counted if "GET" not in line)
    client.predict(
        [dict(live.runtime.models.resolve("mixed").model.sample)], path="/models/mixed/predict"
    )
    assert len(client.get("/explanations").json()["items"]) == 1


def sockets_of(data_dir: Path) -> str:
    """The folder of the queue's sockets, which stays as long as the service runs."""
    return Path((data_dir / "queue" / "sockets").read_text()).name


def test_nothing_stays_in_the_temporary_folder(
    several: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with live_app(several):
        assert [path.name for path in folder.iterdir()] == [sockets_of(several)]
    assert list(folder.iterdir()) == []


def test_without_a_temporary_folder_the_service_starts_cold(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(several / "missing"))
    with live_app(several) as live:
        assert live.client().get("/readyz").status == 200


@pytest.mark.parametrize("name", ["a?b=c", "a%20b"])
def test_any_temporary_folder_will_do_and_nothing_is_made_beside_it(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "temporary" / name
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with live_app(several):
        assert {path.name for path in folder.iterdir()} <= {sockets_of(several)}
        assert list(folder.parent.iterdir()) == [folder]


async def test_a_rehearsal_that_fails_is_told_and_no_more(live: LiveApp) -> None:
    def assemble(_: Runtime) -> ASGIApp:
        raise RuntimeError("secret")

    with capture_logs() as logs:
        await rehearse(live.runtime, assemble)
    assert [line["event"] for line in logs] == ["rehearsal_skipped"]
    assert logs[0]["place"].endswith("assemble > RuntimeError")
    assert "secret" not in str(logs)
