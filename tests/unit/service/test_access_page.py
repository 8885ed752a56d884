"""docs/access.md says which scope opens which route, as the table that the tests walk does."""

import re
from pathlib import Path

import pytest
from access_table import ACCESS_OF_ALL, Access, Route

PAGE = Path(__file__).parents[3] / "docs" / "access.md"
ROW = re.compile(r"^\| (`\w+`|any key|no key) \| (.+) \|$", re.MULTILINE)
CALL = re.compile(r"(?:(GET|POST) )?(/[a-z0-9][\w{}./:]*)")


def routes_of(cell: str) -> set[Route]:
    """The routes a cell names: a method holds for the paths behind it until the next one."""
    found, method = set(), ""
    for match in CALL.finditer(re.sub(r"\(.*?\)", "", cell)):
        method = match[1] or method
        found.add((method, match[2]))
    return found


def as_written(route: Route) -> Route:
    method, path = route
    return method, path.replace("breast_cancer", "{name}").replace("{request_id}", "{id}")


def named(access: Access) -> str:
    """What the page calls who may call it."""
    if access.needs is None:
        return "no key"
    return f"`{access.needs}`" if access.needs else "any key"


def test_every_route_stands_beside_its_scope_and_no_other_does() -> None:
    page = {who: routes_of(cell) for who, cell in ROW.findall(PAGE.read_text())}
    table: dict[str, set[Route]] = {who: set() for who in page}
    for route, access in ACCESS_OF_ALL.items():
        table[named(access)].add(as_written(route))
    assert page == table


@pytest.mark.parametrize(
    ("cell", "routes"),
    [
        ("POST /a, /a/{id}; GET /b", {("POST", "/a"), ("POST", "/a/{id}"), ("GET", "/b")}),
        (
            "`explain=true` (with GET /a), GET /v1/m/{name}:explain",
            {("GET", "/v1/m/{name}:explain")},
        ),
        ("every record of the tenant", set()),
    ],
)
def test_what_a_cell_names_is_read(cell: str, routes: set[Route]) -> None:
    assert routes_of(cell) == routes
