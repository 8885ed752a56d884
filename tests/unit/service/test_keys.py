"""The API-keys file: what a key is for, how it ends, and the file of the first release."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import explaind
from servers import wait_until

from service.auth import Authenticator, KeyFile
from service.errors import (
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    UnknownError,
)


def authenticator(file: Path, keys: KeyFile) -> Authenticator:
    keys.write(file)
    return Authenticator(file)


def is_refused(known: Authenticator, key: str) -> bool:
    try:
        known.caller(f"Bearer {key}")
    except UnauthenticatedError:
        return True
    return False


def test_a_key_carries_tenants_roles_and_quotas(tmp_path: Path) -> None:
    keys, key = KeyFile().with_key(
        *("ann", ("audit",), "north", "south", "north"),
        roles=("support",),
        explain_per_minute=5,
        predict_per_minute=0,
        recourse_per_minute=7,
    )
    caller = authenticator(tmp_path / "keys.json", keys).caller(f"Bearer {key}")
    assert (caller.principal, caller.tenant, caller.tenants) == ("ann", "north", ("north", "south"))
    assert caller.recourse_per_minute == 7
    assert (caller.roles, caller.explain_per_minute, caller.predict_per_minute) == (
        ("support",),
        5,
        0,
    )


def test_a_caller_looks_only_into_his_own_tenants(tmp_path: Path) -> None:
    keys, key = KeyFile().with_key("ann", ("audit",), "north", "south")
    caller = authenticator(tmp_path / "keys.json", keys).caller(f"Bearer {key}")
    assert caller.at("north") is caller
    assert caller.at("south").tenant == "south"
    assert caller.at("south").at("north").tenant == "north"
    with pytest.raises(NotFoundError):
        caller.at("west")


def test_a_file_of_the_first_release_is_read_and_written_anew(tmp_path: Path) -> None:
    keys, key = KeyFile().with_key("ann", ("predict",), "north")
    old = json.loads(keys.model_dump_json())
    for name in ("tenants", "roles", "explain_per_minute", "predict_per_minute", "valid_until"):
        del old["keys"][0][name]
    old["keys"][0]["tenant"] = "north"
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(old))
    caller = Authenticator(file).caller(f"Bearer {key}")
    assert (caller.tenant, caller.tenants, caller.roles) == ("north", ("north",), ())
    assert KeyFile.read(file) == keys
    both = {**old["keys"][0], "tenants": ["north"]}
    file.write_text(json.dumps({"keys": [both]}))
    with pytest.raises(InvalidInputError):
        KeyFile.read(file)


def test_while_keys_rotate_both_work_and_then_the_new_one_alone(tmp_path: Path) -> None:
    keys, old = KeyFile().with_key("ann", ("predict",), "north", roles=("support",))
    keys, new = keys.rotated("ann", timedelta(seconds=0.5))
    known = authenticator(tmp_path / "keys.json", keys)
    callers = [known.caller(f"Bearer {key}") for key in (old, new)]
    assert callers[0] == callers[1]
    wait_until(lambda: is_refused(known, old))
    assert known.caller(f"Bearer {new}") == callers[1]


def test_rotating_twice_never_lengthens_a_keys_life() -> None:
    keys = KeyFile().with_key("ann", ("predict",))[0]
    keys = keys.rotated("ann", timedelta(hours=1))[0]
    first = keys.keys[0].valid_until
    keys = keys.rotated("ann", timedelta(hours=48))[0]
    assert keys.keys[0].valid_until == first
    assert keys.keys[1].valid_until is not None
    assert keys.keys[2].valid_until is None
    now = datetime.now(UTC)
    assert [entry.is_in_force(now + timedelta(hours=2)) for entry in keys.keys] == [0, 1, 1]


def test_revoking_a_name_ends_all_its_keys(tmp_path: Path) -> None:
    keys, old = KeyFile().with_key("ann", ("predict",))
    keys, new = keys.rotated("ann", timedelta(hours=1))
    known = authenticator(tmp_path / "keys.json", keys.without("ann"))
    for key in (old, new):
        with pytest.raises(UnauthenticatedError):
            known.caller(f"Bearer {key}")


def test_what_is_not_in_force_cannot_be_rotated_and_a_name_in_force_not_be_made_again() -> None:
    keys = KeyFile().with_key("ann", ("predict",))[0]
    with pytest.raises(InvalidInputError, match="rotate"):
        keys.with_key("ann", ("predict",))
    with pytest.raises(UnknownError):
        keys.rotated("ben", timedelta(0))
    with pytest.raises(UnknownError):
        keys.without("ann").rotated("ann", timedelta(0))
    assert keys.without("ann").with_key("ann", ("predict",))[1]


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "../up", "-first"])
def test_tenants_and_roles_are_names(name: str) -> None:
    with pytest.raises(InvalidInputError):
        KeyFile().with_key("ann", ("predict",), "north", name)
    with pytest.raises(InvalidInputError):
        KeyFile().with_key("ann", ("predict",), roles=(name,))


def test_the_commands_make_list_and_rotate_keys(tmp_path: Path) -> None:
    place = ("--file", str(tmp_path / "keys.json"))
    made = explaind(
        *("keys", "create", "ann", "--scope", "audit", "--tenant", "north", "--tenant", "south"),
        *("--role", "support", "--explain-per-minute", "60", *place),
    )
    assert made.returncode == 0, made.stderr
    renewed = explaind("keys", "rotate", "ann", "--overlap-hours", "2", *place)
    known = Authenticator(tmp_path / "keys.json")
    callers = [known.caller(f"Bearer {run.stdout.strip()}") for run in (made, renewed)]
    assert callers[0] == callers[1]
    assert callers[0].tenants == ("north", "south")
    listed = explaind("keys", "list", *place).stdout.splitlines()
    assert "in force until" in listed[0]
    assert listed[1].split()[1:4] == ["north,south", "audit", "support"]
    assert explaind("keys", "rotate", "ben", *place).returncode == 3
