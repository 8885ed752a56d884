"""Versions whose files changed after registration are never served."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from service.errors import CheckFailedError
from service.registry import Registry
from service.registry.errors import DamagedVersionError, GoldenMismatchError

FILES = (
    "background.json", "baseline.json", "card.md", "golden.json", "model.ubj", "sample.json",
    "tables.npy",
)  # fmt: skip


def folder_of(registry: Registry) -> Path:
    return registry.layout.folder("small", 2)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    document = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(change(document) or document))


def fix_digests(folder: Path, **entries: Any) -> None:
    """What someone who may write the folder would do to hide a change."""

    def fix(manifest: Any) -> None:
        for name, entry in manifest["files"].items():
            entry["sha256"] = "sha256:" + hashlib.sha256((folder / name).read_bytes()).hexdigest()
        manifest.update(entries)

    edit(folder / "manifest.json", fix)


def test_untouched_version_loads(registry: Registry) -> None:
    assert registry.load("small", 2).version == 2


@pytest.mark.parametrize("name", [*FILES, "schema.json"])
def test_one_flipped_bit_is_found(registry: Registry, name: str) -> None:
    path = folder_of(registry) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedVersionError, match=f"{name} is not the file that was registered"):
        registry.load("small", 2)


def test_flipped_byte_of_the_manifest_never_loads_as_the_same_version(registry: Registry) -> None:
    path = folder_of(registry) / "manifest.json"
    data, digest = path.read_bytes(), registry.load("small", 2).digest
    for position in range(0, len(data), 199):
        flipped = bytearray(data)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        try:
            assert registry.load("small", 2).digest != digest
        except CheckFailedError:
            continue


@pytest.mark.parametrize("name", ["model.ubj", "golden.json", "tables.npy", "manifest.json"])
def test_absent_and_truncated_files_are_found(registry: Registry, name: str) -> None:
    path = folder_of(registry) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedVersionError):
        registry.load("small", 2)
    path.unlink()
    with pytest.raises(DamagedVersionError):
        registry.load("small", 2)


def test_truncated_model_with_its_digest_fixed_is_refused(registry: Registry) -> None:
    model = folder_of(registry) / "model.ubj"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    fix_digests(folder_of(registry))
    with pytest.raises(DamagedVersionError, match="small/2"):
        registry.load("small", 2)


def test_truncated_tables_with_their_digest_fixed_are_refused(registry: Registry) -> None:
    tables = folder_of(registry) / "tables.npy"
    tables.write_bytes(tables.read_bytes()[:-20])
    fix_digests(folder_of(registry))
    with pytest.raises(DamagedVersionError, match="small/2: the stored tables cannot be read"):
        registry.load("small", 2)


def test_tables_that_point_outside_with_their_digest_fixed_are_refused(registry: Registry) -> None:
    tables = folder_of(registry) / "tables.npy"
    data = bytearray(tables.read_bytes())
    starts = data.index(b"'<u4'")
    end_of_header = data.index(b"\n", starts) + 1
    data[end_of_header : end_of_header + 4] = b"\xff" * 4
    tables.write_bytes(data)
    fix_digests(folder_of(registry))
    with pytest.raises(DamagedVersionError, match="small/2: piece_starts of the stored tables"):
        registry.load("small", 2)


def test_changed_numbers_in_the_tables_are_found_by_the_golden_values(registry: Registry) -> None:
    tables = folder_of(registry) / "tables.npy"
    data = bytearray(tables.read_bytes())
    numbers = data.index(b"\n", data.index(b"'<f4'")) + 1
    length = (len(data) - numbers) // 2 // 4 * 4
    changed = 2 * np.frombuffer(data[numbers : numbers + length], dtype=np.float32)
    data[numbers : numbers + length] = changed.tobytes()
    tables.write_bytes(data)
    fix_digests(folder_of(registry))
    with pytest.raises(GoldenMismatchError, match="values differ from the golden values by"):
        registry.load("small", 2)


@pytest.mark.parametrize("kind", ["ubj", "json", "txt", "skops"])
def test_pickle_under_another_name_is_refused_unread(
    registry: Registry, kind: str, tmp_path: Path
) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    folder = folder_of(registry)
    (folder / f"model.{kind}").write_bytes(pickle.dumps(Hostile()))

    def replace_model(manifest: Any) -> None:
        manifest["artifact"] |= {"file": f"model.{kind}", "format": kind}
        manifest["files"][f"model.{kind}"] = manifest["files"]["model.ubj"]

    edit(folder / "manifest.json", replace_model)
    fix_digests(folder)
    with pytest.raises(DamagedVersionError, match="small/2"):
        registry.load("small", 2)
    assert not (tmp_path / "ran").exists()


def swap_columns(schema: Any) -> Any:
    names = list(schema["properties"])
    names[0], names[1] = names[1], names[0]
    return schema | {"properties": {name: schema["properties"][name] for name in names}}


def test_columns_swapped_in_the_schema_are_found_by_name(registry: Registry) -> None:
    folder = folder_of(registry)
    edit(folder / "schema.json", swap_columns)
    fix_digests(folder)
    with pytest.raises(DamagedVersionError, match="its schema is not what"):
        registry.load("small", 2)
    digest = registry_schema(folder).digest()
    fix_digests(folder, schema_digest=digest)
    with pytest.raises(DamagedVersionError, match="its column names is not what"):
        registry.load("small", 2)
    names = registry_schema(folder).feature_names_digest()
    fix_digests(folder, schema_digest=digest, feature_names_digest=names)
    with pytest.raises(DamagedVersionError, match="its column names is not what"):
        registry.load("small", 2)


def registry_schema(folder: Path) -> Any:
    from schemas import ModelSchema

    return ModelSchema.from_json((folder / "schema.json").read_bytes())


def background_entry(folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256((folder / "background.json").read_bytes()).hexdigest()
    entry: dict[str, Any] = orjson.loads((folder / "manifest.json").read_bytes())["background"]
    return entry | {"digest": f"sha256:{digest}"}


def test_swapped_background_is_found_by_the_golden_values(registry: Registry) -> None:
    folder = folder_of(registry)
    edit(folder / "background.json", lambda rows: rows[:-1] + rows[:1])
    fix_digests(folder)
    with pytest.raises(DamagedVersionError, match="its background is not what"):
        registry.load("small", 2)
    fix_digests(folder, background=background_entry(folder))
    with pytest.raises(GoldenMismatchError, match="values differ from the golden values by"):
        registry.load("small", 2)


@pytest.mark.parametrize("name", ["outputs", "scores", "values", "base_values"])
def test_golden_mismatch_names_the_array_the_gap_and_the_tolerance(
    registry: Registry, name: str
) -> None:
    def disturb(golden: Any) -> None:
        row = golden[name][0]
        while isinstance(row[0], list):
            row = row[0]
        row[0] += 10.0

    edit(folder_of(registry) / "golden.json", disturb)
    fix_digests(folder_of(registry))
    with pytest.raises(
        GoldenMismatchError,
        match=rf"small/2: {name} differ .* by [\d.]+ \(allowed 1e-05\); the version is not served",
    ):
        registry.load("small", 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda golden: golden | {"instances": []},
        lambda golden: golden | {"values": []},
        lambda golden: golden | {"scores": None},
        lambda golden: golden | {"instances": [{"nose": 1}]},
        lambda golden: {key: golden[key] for key in golden if key != "values"},
        lambda _: [],
        lambda _: {},
    ],
)
def test_golden_values_that_prove_nothing_are_refused(
    registry: Registry, change: Callable[[Any], Any]
) -> None:
    path = folder_of(registry) / "golden.json"
    path.write_bytes(orjson.dumps(change(orjson.loads(path.read_bytes()))))
    fix_digests(folder_of(registry))
    with pytest.raises(CheckFailedError, match="small/2"):
        registry.load("small", 2)


@pytest.mark.parametrize("name", ["../1/model.ubj", "/etc/hostname", "..", ".", "", "a/b", "\x00"])
def test_paths_out_of_the_folder_are_refused(registry: Registry, name: str) -> None:
    def lead_out(manifest: Any) -> None:
        manifest["files"][name] = manifest["files"]["model.ubj"]

    edit(folder_of(registry) / "manifest.json", lead_out)
    with pytest.raises(DamagedVersionError):
        registry.load("small", 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest | {"version": 3},
        lambda manifest: manifest | {"name": "other"},
        lambda manifest: manifest | {"task": "regression"},
        lambda manifest: manifest | {"surprise": 1},
        lambda manifest: manifest | {"files": {}},
        lambda manifest: manifest | {"artifact": manifest["artifact"] | {"file": "nothing"}},
        lambda manifest: manifest | {"artifact": manifest["artifact"] | {"names": ["a", "b"]}},
    ],
)
def test_manifest_of_another_version_is_refused(
    registry: Registry, change: Callable[[Any], Any]
) -> None:
    edit(folder_of(registry) / "manifest.json", change)
    with pytest.raises(DamagedVersionError):
        registry.load("small", 2)


def test_version_copied_under_another_number_is_refused(registry: Registry) -> None:
    folder_of(registry).rename(folder_of(registry).with_name("9"))
    with pytest.raises(DamagedVersionError, match="small/9 holds small/2"):
        registry.load("small", 9)
