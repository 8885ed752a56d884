import shutil
from pathlib import Path

import pytest

from service.errors import UnknownError
from service.registry import Registry
from service.registry.described import describe_version
from service.registry.errors import DamagedVersionError
from service.registry.layout import Layout


@pytest.fixture
def layout(tmp_path: Path, demo_registry: Path) -> Layout:
    shutil.copytree(demo_registry, tmp_path / "registry")
    return Layout(tmp_path / "registry")


def test_a_description_says_what_the_loaded_version_says(layout: Layout) -> None:
    loaded = Registry(layout.root).load("breast_cancer", 1)
    described = describe_version(layout, "breast_cancer", 1)
    assert described.digest == loaded.digest
    assert described.manifest == loaded.manifest
    assert described.schema.names == loaded.schema.names


def test_a_version_that_is_not_there_is_unknown(layout: Layout) -> None:
    with pytest.raises(UnknownError):
        describe_version(layout, "breast_cancer", 2)


@pytest.mark.parametrize("content", [None, b"{", b"{}", b'{"type":"object","properties":{}}'])
@pytest.mark.parametrize("file", ["manifest.json", "schema.json"])
def test_a_changed_or_missing_file_is_refused(
    layout: Layout, file: str, content: bytes | None
) -> None:
    path = layout.folder("breast_cancer", 1) / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DamagedVersionError):
        describe_version(layout, "breast_cancer", 1)
