"""Applications that give recourse on `mixed`, and what is asked of them."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live_app import LiveApp, live_app
from servers import JSON, Client, Reply

Instance = dict[str, Any]
POLICY = """
[default.roles.support]
mask = ["radius"]

[models.mixed.decision]
name = "refer"
otherwise = "discharge"
class = "0"
at_least = 0.5

[models.mixed.recourse]
target = "discharge"
margin = 0.1

[models.mixed.recourse.columns]
radius = { direction = "down", step = 0.1 }
area = { low = 200, high = 900, step = 10 }
visits = { step = 2, cost = 0.5 }
site = { levels = ["left", "right"] }
grade = "free"
perimeter = "free"
texture = "free"

[[models.mixed.rules]]
name = "rough"
when = "smoothness > 0.14"
explain = "never"
"""


def post(client: Client, content: object, **headers: str) -> Reply:
    return client.request("POST", "/counterfactuals", json.dumps(content).encode(), JSON | headers)


def predicted(client: Client, *instances: Instance, **more: object) -> Any:
    body = json.dumps({"instances": instances, **more}).encode()
    return client.request("POST", "/models/mixed/predict", body, JSON).json()


def closest(client: Client, rows: Sequence[Instance]) -> Instance:
    """Of those that are decided against and may be explained the closest call."""
    rows = [r for r in rows if r["smoothness"] <= 0.13 and None not in r.values()]
    bad = [p["probabilities"]["0"] for p in predicted(client, *rows)["predictions"]]
    return min(
        (p, place, row) for place, (p, row) in enumerate(zip(bad, rows, strict=True)) if p >= 0.5
    )[2]


@contextmanager
def serving(folder: Path, registry: Path, policy: str = POLICY, **more: Any) -> Iterator[LiveApp]:
    folder.mkdir(exist_ok=True)
    shutil.copytree(registry, folder / "registry")
    (folder / "policy.toml").write_text(policy)
    with live_app(folder, policy_file=folder / "policy.toml", model="mixed", **more) as live:
        yield live
