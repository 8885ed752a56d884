"""Who may do what, written by hand from the contract: one row for every route.

A route without a row fails tests/integration/test_access.py, and so does a row without a route.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servers import JSON, Client, Reply

from service.auth import SCOPES, Scope

Instance = dict[str, Any]
Route = tuple[str, str]
RECORD = "/explanations/{request_id}"


@dataclass(frozen=True)
class Access:
    """What a route asks of the caller.

    needs: the scope; "" for any key, None for nobody's; also: another one besides. is_of_a_record:
    what it is about belongs to somebody, and is 404 to all but its maker and, with the scope audit,
    his tenant. status: of the answer to who gets through. sends: the body, made of the record's ID
    and an instance.
    """

    needs: Scope | str | None
    status: int = 200
    is_of_a_record: bool = False
    sends: str | None = None
    also: Scope | None = None

    def body(self, request_id: str, instance: Instance) -> Mapping[str, object] | None:
        """What is sent to it."""
        bodies: dict[str, Mapping[str, object]] = {
            "instances": {"instances": [instance]},
            "tensors": {"inputs": [_tensor(name, cell) for name, cell in instance.items()]},
            "request_id": {"request_id": request_id},
            "rating": {"rating": 3},
            "labels": {"labels": ["benign"]},
        }
        return None if self.sends is None else bodies[self.sends]

    def admits(self, scopes: frozenset[str]) -> bool:
        """A key of these scopes is not refused as such."""
        return self.needs in {None, "", *scopes} and self.also in {None, *scopes}

    @property
    def security(self) -> list[dict[str, list[str]]]:
        """What the OpenAPI document says of it."""
        if self.needs is None:
            return []
        return [{"api_key": [scope for scope in (self.needs, self.also) if scope]}]


def _tensor(name: str, cell: float) -> dict[str, object]:
    return {"name": name, "shape": [1], "datatype": "FP64", "data": [cell]}


V2_MODEL = "/v2/models/{name}"
ACCESS: dict[Route, Access] = {
    ("POST", "/predict"): Access("predict", sends="instances"),
    ("POST", "/models/breast_cancer/predict"): Access("predict", sends="instances"),
    ("GET", RECORD): Access("", is_of_a_record=True),
    ("GET", RECORD + "/narrative"): Access("", is_of_a_record=True),
    ("GET", RECORD + "/related"): Access("", is_of_a_record=True),
    ("GET", RECORD + "/events"): Access("", is_of_a_record=True),
    ("GET", RECORD + "/proof"): Access("", is_of_a_record=True),
    ("GET", RECORD + "/feedback"): Access("", is_of_a_record=True),
    ("GET", RECORD + "/counterfactuals"): Access("", is_of_a_record=True),
    ("POST", "/counterfactuals"): Access("recourse", 409, is_of_a_record=True, sends="request_id"),
    ("POST", RECORD + "/feedback"): Access("explain", 204, sends="rating"),
    ("POST", RECORD + "/label"): Access("explain", 204, sends="labels"),
    ("POST", RECORD + "/replay"): Access("audit"),
    ("POST", RECORD + "/cancel"): Access("explain", 409, is_of_a_record=True),
    ("POST", "/explanations"): Access("explain", 202, is_of_a_record=True, sends="request_id"),
    ("GET", "/explanations"): Access("audit"),
    ("GET", "/models"): Access("predict"),
    ("GET", "/models/{name}"): Access("predict"),
    ("GET", "/models/{name}/card"): Access("predict"),
    ("GET", "/models/{name}/review"): Access("audit"),
    ("GET", "/models/{name}/importance"): Access("audit"),
    ("GET", "/log/checkpoint"): Access(""),
    ("GET", "/log/key"): Access(""),
    ("GET", "/log/consistency"): Access(""),
    ("GET", "/metrics"): Access("metrics"),
    ("GET", "/v1/models"): Access("predict"),
    ("GET", "/v1/models/{name}"): Access("predict"),
    ("POST", "/v1/models/breast_cancer:predict"): Access("predict", sends="instances"),
    ("POST", "/v1/models/breast_cancer:explain"): Access(
        "predict", sends="instances", also="explain"
    ),
    ("GET", "/v2"): Access("predict"),
    ("GET", "/v2/health/live"): Access(None),
    ("GET", "/v2/health/ready"): Access(None),
    ("GET", V2_MODEL): Access("predict"),
    ("GET", V2_MODEL + "/ready"): Access("predict"),
    ("GET", V2_MODEL + "/versions/{version}"): Access("predict"),
    ("GET", V2_MODEL + "/versions/{version}/ready"): Access("predict"),
    ("POST", "/v2/models/breast_cancer/infer"): Access("predict", sends="tensors"),
    ("POST", "/v2/models/breast_cancer/versions/{version}/infer"): Access(
        "predict", sends="tensors"
    ),
    ("GET", "/livez"): Access(None),
    ("GET", "/readyz"): Access(None),
}

UNDOCUMENTED: dict[Route, Access] = {
    ("GET", "/openapi.json"): Access("predict"),
    ("GET", "/docs"): Access("predict"),
}
"""Routes that the OpenAPI document leaves out."""

ACCESS_OF_ALL = {**ACCESS, **UNDOCUMENTED}

PRINCIPALS: dict[str, tuple[tuple[Scope, ...], str]] = {
    **{scope: ((scope,), "default") for scope in SCOPES},
    **{f"not-{s}": (tuple({*SCOPES} - {s}), "default") for s in SCOPES},
    "alice": (("predict", "explain", "recourse"), "default"),
    "bob": (("predict", "explain", "recourse"), "default"),
    "eve": (SCOPES, "elsewhere"),
    "revoked": (SCOPES, "default"),
    "ended": (SCOPES, "default"),
}
"""Name to scopes and tenant; one principal per scope is named after it, and one per scope has all
others. The last two have keys that are in force no more.
"""


def send(
    client: Client, route: Route, request_id: str, instance: Instance, query: str = ""
) -> Reply:
    """Call a route of the access table about a record."""
    method, template = route
    path = template.replace("{request_id}", request_id).replace("{name}", "breast_cancer")
    path = path.replace("{version}", "1")
    content = ACCESS_OF_ALL[route].body(request_id, instance)
    if content is None:
        return client.request(method, path + query)
    return client.request(method, path + query, json.dumps(content).encode(), JSON)
