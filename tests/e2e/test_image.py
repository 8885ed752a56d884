"""The Dockerfile's steps, performed without an engine: what it would copy, install and compile is
used as in a container with a read-only root.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployment import ROOT, in_build_context, instructions
from servers import start_server
from tables import breast_cancer, instances_of

PLACE = "/opt/explaind"
INSTRUCTIONS = instructions((ROOT / "Dockerfile").read_text())
NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Root is held to modes of files as others are."""


@dataclass(frozen=True)
class Image:
    """An environment in place of the image's /opt/explaind."""

    place: Path

    @property
    def kernels(self) -> Path:
        return self.place / "share" / "explaind-kernels"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of what runs in it: nothing of the checkout's."""
        path = f"{self.place}/bin{os.pathsep}{os.environ['PATH']}"
        cache = {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(self.kernels)}
        return {**os.environ, **cache, "PATH": path, "PYTHONPATH": ""}


def writable(folder: Path, *, is_so: bool) -> None:
    """Let the owner write a tree, or not."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | stat.S_IWUSR if is_so else mode & ~0o222)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built by the commands of the Dockerfile but for those that download."""
    folder = tmp_path_factory.mktemp("image")
    built = Image(folder / "explaind")
    venv.create(built.place)
    packages = built.place / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    # In place of the step that downloads the locked packages: those of this environment.
    downloaded = [path for path in sys.path if path.endswith("-packages")]
    (packages / "downloaded.pth").write_text("\n".join(downloaded))
    context = folder / "app"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().splitlines():
        if in_build_context(name, (ROOT / ".dockerignore").read_text()):
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, context / name)
    run = [one.text for one in INSTRUCTIONS if one.stage == 0 and one.name == "RUN"][-1]
    assert "--no-index ." in run
    command = run.replace(PLACE, str(built.place))
    subprocess.run(["sh", "-c", command], check=True, cwd=context, env=built.variables)
    shutil.rmtree(context)
    writable(built.place, is_so=False)
    yield built
    writable(built.place, is_so=True)


def files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


@pytest.mark.drill
def test_what_is_installed_is_the_wheel_and_not_the_checkout(image: Image) -> None:
    program = "import service, explainers, schemas; print(service.__file__)"
    found = subprocess.run(
        [image.place / "bin" / "python", "-c", program],
        env=image.variables, cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.startswith(str(image.place))


@pytest.mark.drill
def test_it_serves_from_a_read_only_root_and_compiles_nothing(image: Image, data_dir: Path) -> None:
    warm = files(image.kernels)
    assert len(warm) > 20
    writable(data_dir / "registry", is_so=False)
    command = (str(image.place / "bin" / "explaind"),)
    server = start_server(data_dir, env=image.variables, inside=NO_RIGHTS, command=command)
    (check,) = [one.text for one in INSTRUCTIONS if one.name == "HEALTHCHECK"]
    words = json.loads(check[check.index("[") :])
    port = server.url.rpartition(":")[2]
    probe = [re.sub(r":8000\b", f":{port}", word) for word in words]
    try:
        answer = server.client().predict(instances_of(breast_cancer()[0].iloc[:1]))
        assert answer.json()["explanation"]["status"] == "complete"
        subprocess.run(probe, env=image.variables, check=True)
        (copy,) = (data_dir / "kernels").iterdir()
        assert files(copy) == warm
        assert copy.stat().st_mode & 0o777 == 0o700
    finally:
        server.close()
        writable(data_dir / "registry", is_so=True)
    gone = subprocess.run(probe, env=image.variables, check=False, capture_output=True)
    assert gone.returncode != 0
    assert files(image.kernels) == warm
