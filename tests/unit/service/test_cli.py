"""The command line as a process: exit codes, one-line errors, JSON."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
from commands import explaind
from servers import running_server
from tables import breast_cancer, instances_of

COMMANDS = (
    (),
    ("register",),
    ("serve",),
    ("worker",),
    ("demo",),
    ("explain",),
    ("card",),
    ("gate",),
    ("get",),
    ("replay",),
    ("review",),
    ("cost",),
    ("erase",),
    ("hold",),
    ("release",),
    ("holds",),
    ("quarantine",),
    ("purge",),
    ("accesses",),
    ("checkpoint",),
    ("export",),
    ("verify",),
    ("models",),
    ("models", "list"),
    ("models", "show"),
    ("models", "promote"),
    ("models", "rollback"),
    ("rollout",),
    ("rollout", "shadow"),
    ("rollout", "canary"),
    ("rollout", "status"),
    ("rollout", "stop"),
    ("rollout", "report"),
    ("keys",),
    ("keys", "create"),
    ("keys", "list"),
    ("keys", "revoke"),
    ("keys", "rewrap"),
    ("retrain", "list"),
    ("retrain", "approve"),
    ("retrain", "dismiss"),
    ("retrain", "webhook-key"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its table under several pretences, and files that are neither."""
    from xgboost import XGBClassifier

    folder = tmp_path_factory.mktemp("files")
    X, y = breast_cancer()
    X = X.iloc[:100, :3].rename(columns=lambda name: name.replace(" ", "_"))
    y = y[:100]
    XGBClassifier(n_estimators=3, max_depth=2).fit(X, y).save_model(folder / "model.ubj")
    named = X.assign(diagnosis=y.map({0: "malignant", 1: "benign"}))
    named.to_csv(folder / "data.csv", index=False)
    named.to_parquet(folder / "data.parquet")
    named.iloc[:, 1:].to_csv(folder / "narrow.csv", index=False)
    (folder / "model.pkl").write_bytes(pickle.dumps({}))
    (folder / "renamed.ubj").write_bytes(pickle.dumps({}))
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[]")
    (folder / "levels.json").write_text('{"mean_radius": [null]}')
    return folder


def command(*arguments: str, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    return explaind(*arguments, env=env)


def registering(files: Path, data_dir: Path, **changes: str | None) -> tuple[str, ...]:
    given: dict[str, str | None] = {
        "model": str(files / "model.ubj"),
        "data": str(files / "data.csv"),
        "target": "diagnosis",
        "classes": "malignant, benign",
        "data-dir": str(data_dir),
    }
    for name, value in changes.items():
        is_file = value is not None and name not in {"target", "classes", "seed", "background"}
        given[name] = str(files / str(value)) if is_file else value
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return "register", "cancer", *options


def assert_refused(done: CompletedProcess[str], exit_code: int, reason: str) -> None:
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("· ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("explaind: ")
    assert reason in errors[0]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_help_of_every_command_works(arguments: tuple[str, ...]) -> None:
    done = command(*arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "absent.ubj"}, "absent.ubj: No such file"),
        ({"data": "absent.csv"}, "absent.csv: No such file"),
        ({"schema": "absent.json"}, "absent.json: No such file"),
        ({"categories": "absent.json"}, "absent.json: No such file"),
        ({"schema": "broken.json"}, "broken.json: "),
        ({"categories": "broken.json"}, "broken.json: "),
        ({"categories": "list.json"}, "must hold an object of lists"),
        ({"categories": "levels.json"}, "must hold an object of lists"),
        ({"target": "outcome"}, "no column 'outcome' to be the target"),
        ({"target": "mean_radius"}, "the model reads the target 'mean_radius'"),
        ({"classes": "good,bad"}, "is none of the classes good,bad in 100 rows"),
        ({"classes": "benign,malignant"}, "the order is wrong"),
        ({"classes": None}, "--classes"),
        ({"model": "model.pkl"}, "model.pkl is a pickle, which runs code when read"),
        ({"model": "renamed.ubj"}, ""),
        ({"model": "data.csv"}, "unknown format"),
        ({"data": "model.ubj"}, "model.ubj: "),
        ({"data": "narrow.csv"}, "columns the data do not have: 'mean_radius'"),
    ],
)
def test_registration_refuses_in_one_line_with_exit_code_4(
    files: Path, tmp_path: Path, changes: dict[str, str | None], reason: str
) -> None:
    assert_refused(command(*registering(files, tmp_path, **changes)), 4, reason)
    assert not list(tmp_path.glob("registry/*/*"))


@pytest.mark.parametrize("changes", [{"seed": "-1"}, {"background": "0"}, {"seed": "x"}])
def test_bad_options_are_usage_errors(
    files: Path, tmp_path: Path, changes: dict[str, str | None]
) -> None:
    done = command(*registering(files, tmp_path, **changes))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "reason"),
    [
        (("models", "show", "nobody"), 3, "no model 'nobody' is registered"),
        (("models", "show", "cancer", "9"), 3, "no version 9 of model 'cancer'"),
        (("models", "promote", "cancer", "9"), 3, "no version 9 of model 'cancer'"),
        (("models", "promote", "nobody", "1"), 3, "no version 1 of model 'nobody'"),
        (("models", "promote", "../cancer", "1"), 4, "use 1 to 64 letters"),
        (("models", "rollback", "nobody"), 3, "no model 'nobody' is registered"),
        (("models", "rollback", "cancer"), 3, "no other version of 'cancer' has served"),
        (("get", "no-such-request"), 3, "no record of request no-such-request"),
    ],
)
def test_unknown_things_are_reported_in_one_line(
    registered: Path, arguments: tuple[str, ...], exit_code: int, reason: str
) -> None:
    assert_refused(command(*arguments, "--data-dir", str(registered)), exit_code, reason)


@pytest.fixture(scope="module")
def registered(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with `cancer` in two versions, the second from Parquet."""
    folder = tmp_path_factory.mktemp("registered")
    for data in ("data.csv", "data.parquet"):
        done = command(*registering(files, folder, data=data), "--json")
        assert done.returncode == 0, done.stderr
        manifest = json.loads(done.stdout)
        assert manifest["classes"] == ["malignant", "benign"]
    assert manifest["version"] == 2
    return folder


def test_bad_settings_are_exit_code_2() -> None:
    done = command("serve", env={"EXPLAIND_PORT": "many"})
    assert_refused(done, 2, "EXPLAIND_PORT")


def test_registry_that_cannot_be_written_is_exit_code_5(files: Path, tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("a file")
    done = command(*registering(files, tmp_path))
    assert_refused(done, 5, "registry")


def test_damaged_version_is_exit_code_1(registered: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(registered, tmp_path / "copy")
    golden = tmp_path / "copy" / "registry" / "cancer" / "2" / "golden.json"
    golden.write_bytes(golden.read_bytes() + b" ")
    promote = ("models", "promote", "cancer", "2", "--data-dir", str(tmp_path / "copy"))
    assert_refused(command(*promote), 1, "golden.json is not the file that was registered")


def test_what_a_command_logs_is_json_on_stderr(registered: Path, tmp_path: Path) -> None:
    import hashlib
    import shutil

    shutil.copytree(registered, tmp_path / "copy")
    folder = tmp_path / "copy" / "registry" / "cancer" / "2"
    tables = bytearray((folder / "tables.npy").read_bytes())
    tables[tables.index(b"\n") + 1] += 1  # the format's number
    (folder / "tables.npy").write_bytes(tables)
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = "sha256:" + hashlib.sha256(tables).hexdigest()
    manifest["files"]["tables.npy"]["sha256"] = digest
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = command("models", "promote", "cancer", "2", "--data-dir", str(tmp_path / "copy"))
    assert (done.returncode, done.stdout) == (0, "")
    line, last = done.stderr.splitlines()
    assert json.loads(line)["event"] == "tables_rebuilt"
    assert last.endswith("cancer version 2 serves")


def test_reading_commands_print_json(registered: Path) -> None:
    place = ("--data-dir", str(registered), "--json")
    listed = command("models", "list", *place)
    facts = {"name": "cancer", "serving": 1, "versions": [1, 2], "disabled": False}
    assert json.loads(listed.stdout) == [facts]
    shown: Any = json.loads(command("models", "show", "cancer", "2", *place).stdout)
    assert (shown["name"], shown["version"]) == ("cancer", 2)


def test_text_for_people_marks_what_serves_and_shows_the_card(registered: Path) -> None:
    place = ("--data-dir", str(registered))
    assert command("models", "list", *place).stdout == "cancer  1* 2\n"
    card = command("models", "show", "cancer", *place).stdout
    assert card.startswith("# cancer, version 1\n")


def test_list_of_an_absent_registry_is_empty(tmp_path: Path) -> None:
    done = command("models", "list", "--json", "--data-dir", str(tmp_path / "absent"))
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert not (tmp_path / "absent").exists()


def test_list_tells_a_damaged_name_beside_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "registry" / "odd"
    folder.mkdir(parents=True)
    (folder / "serving").write_text("?")
    done = command("models", "list", "--data-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "odd    (serving: unknown)\n")


def test_get_prints_the_apis_bytes(registered: Path, tmp_path: Path) -> None:
    database = ("--database-url", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    X: pd.DataFrame = breast_cancer()[0].rename(columns=lambda name: name.replace(" ", "_"))
    instances = instances_of(X.iloc[:2, :3])
    with running_server(registered, *database) as server:
        client = server.client()
        answer = client.predict(instances, path="/models/cancer/predict")
        request_id = answer.json()["request_id"]
        over_http = client.get(f"/explanations/{request_id}").body
        place = ("get", request_id, "--data-dir", str(registered))
        found = command(*place, *database), command(*place, *database, "--json")
        missed = command(*place)
    for done in found:
        assert done.returncode == 0, done.stderr
        assert done.stdout.encode() == over_http + b"\n"
    assert_refused(missed, 3, "no record of request")
