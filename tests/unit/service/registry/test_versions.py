"""Numbers, the serving pointer and its history."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import CheckFailedError, UnavailableError, UnknownError
from service.registry import Registry

REGISTER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from tables import breast_cancer
from xgboost import XGBClassifier
from service.compiling import choose_kernel_cache
from service.registry import Registry
choose_kernel_cache(Path({cache!r}))
X, y = breast_cancer()
X = X.iloc[:50, :2]
model = XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(X, y[:50])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    print(Registry({root!r}).register("twin", model, X, y[:50]).model.version, flush=True)
"""


def history(registry: Registry) -> str:
    return (Path(registry.path) / "small" / "history").read_text()


def test_first_version_serves_at_once_and_later_ones_wait(registry: Registry) -> None:
    assert registry.layout.versions("small") == [1, 2, 3]
    assert registry.serving("small").version == 1
    assert registry.layout.serving("small") == 1


def test_two_processes_registering_at_once_number_apart(tmp_path: Path) -> None:
    import tempfile

    script = REGISTER.format(
        tests=str(Path(__file__).parents[3] / "support"),
        cache=str(Path(tempfile.gettempdir()) / "explaind-tests"),
        root=str(tmp_path / "registry"),
    )
    command = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    twins = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for twin in twins:
        assert twin.stdout.readline() == "ready\n"
    for twin in twins:
        twin.stdin.write("go\n")
        twin.stdin.flush()
    printed = [twin.communicate(timeout=100)[0].split() for twin in twins]
    assert sorted(int(number) for numbers in printed for number in numbers) == [1, 2, 3, 4, 5, 6]
    registry = Registry(tmp_path / "registry")
    assert registry.layout.serving("twin") == 1
    assert registry.load("twin", 6).manifest.version == 6
    assert sorted(p.name for p in (tmp_path / "registry" / "twin").iterdir()) == [
        *"123456",
        "history",
        "serving",
    ]


def test_rollback_goes_back_step_by_step_through_what_served(registry: Registry) -> None:
    registry.promote("small", 3)
    registry.promote("small", 2)
    assert registry.rollback("small").version == 3
    assert registry.layout.serving("small") == 3
    assert registry.rollback("small").version == 1
    with pytest.raises(UnknownError, match="no other version of 'small' has served"):
        registry.rollback("small")
    assert registry.layout.serving("small") == 1


def test_promoting_the_serving_version_again_changes_nothing(registry: Registry) -> None:
    registry.promote("small", 2)
    registry.promote("small", 2)
    assert history(registry).split() == ["1", "2"]
    assert registry.rollback("small").version == 1


def test_promoting_back_is_a_promotion_that_can_be_rolled_back(registry: Registry) -> None:
    registry.promote("small", 2)
    registry.promote("small", 1)
    assert registry.rollback("small").version == 2


def test_step_back_to_another_version_than_the_last_is_refused(registry: Registry) -> None:
    registry.promote("small", 2)
    with pytest.raises(UnavailableError, match="promoted meanwhile"):
        registry.layout.step_back("small", 3)
    assert registry.layout.serving("small") == 2


def test_promoting_a_damaged_version_leaves_the_old_one(registry: Registry) -> None:
    (registry.layout.folder("small", 2) / "golden.json").write_bytes(b"{}")
    with pytest.raises(CheckFailedError, match="digest differs"):
        registry.promote("small", 2)
    assert registry.layout.serving("small") == 1
    assert history(registry).split() == ["1"]


def test_rolling_back_to_a_damaged_version_leaves_the_present_one(registry: Registry) -> None:
    registry.promote("small", 2)
    (registry.layout.folder("small", 1) / "golden.json").write_bytes(b"{}")
    with pytest.raises(CheckFailedError, match="digest differs"):
        registry.rollback("small")
    assert registry.layout.serving("small") == 2
    assert history(registry).split() == ["1", "2"]


def test_unknown_names_and_versions_are_not_found(registry: Registry) -> None:
    with pytest.raises(UnknownError, match="no version 9 of model 'small'"):
        registry.promote("small", 9)
    for call in (registry.rollback, registry.serving):
        with pytest.raises(UnknownError, match="no model 'other' is registered"):
            call("other")
    assert registry.layout.serving("../registry/small") is None


@pytest.mark.parametrize("file", ["serving", "history"])
@pytest.mark.parametrize("content", [b"", b"two", b"\xff\xfe", b"-1", b"../2", b"1.5", b"0"])
def test_garbage_in_a_pointer_file_is_reported(
    registry: Registry, file: str, content: bytes
) -> None:
    (Path(registry.path) / "small" / file).write_bytes(content)
    if file == "serving":
        with pytest.raises(CheckFailedError, match="serving"):
            registry.serving("small")
    elif content:
        with pytest.raises(CheckFailedError, match="history"):
            registry.rollback("small")
    else:
        with pytest.raises(UnknownError):
            registry.rollback("small")


def test_strange_files_beside_the_versions_are_no_versions(registry: Registry) -> None:
    for name in ("0", "07", "x", ".draft-1", "4.bak"):
        (Path(registry.path) / "small" / name).mkdir()
    assert registry.layout.versions("small") == [1, 2, 3]
    (Path(registry.path) / "stray file").write_text("")
    assert registry.layout.names() == ["small"]


def test_registry_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("a file")
    with pytest.raises(UnavailableError), Registry(tmp_path / "registry").layout.lock():
        pass
