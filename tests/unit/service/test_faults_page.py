"""docs/faults.md names tests and metrics that are there, and says right which tests are drills."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "faults.md"
METRICS_PAGE = ROOT / "docs" / "metrics.md"
METRIC = re.compile(r"`((?:explain|http)_\w+)(?:{([^}]*)})?`")
LABELS = re.compile(r"^\| `(\w+)` \| \w+ \| ([^|]*) \|", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`( \(drill\))?")
FAULTS = """
explainer raises, sleeps, holds the GIL, aborts, sums 5 % off; Redis down at start, stopped,
emptied, at maxmemory; worker killed; API killed; disk full; locked for 30 s; a day back or ahead;
slow clients; more requests; five times at once; SIGTERM; hostile bytes; truncated; byte flipped;
erased; pickle; columns swapped; background swapped; edited; deleted; swapped; inserted; old copy;
against a hold; hot swap; 32 threads
"""


@cache
def drills_of(file: str) -> dict[str, bool]:
    """Each test of a file, and whether it is a drill as a whole."""
    tree = ast.parse((ROOT / file).read_text())
    are_all = any(
        isinstance(node, ast.Assign)
        and "pytestmark" in ast.unparse(node.targets[0])
        and "mark.drill" in ast.unparse(node.value)
        for node in tree.body
    )
    return {
        node.name: are_all
        or any(ast.unparse(one) == "pytest.mark.drill" for one in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_named_is_there_and_a_drill_only_where_it_says_so() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 40
    wrong = [
        (file, name) for file, name, drill in named if drills_of(file).get(name) is not bool(drill)
    ]
    assert wrong == []


def faults() -> list[list[str]]:
    """Fault, what happens, where it shows, tests."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return [row for row in cells if row[0] != "fault"]


def test_every_fault_shows_in_a_metric_or_the_page_says_that_it_does_not() -> None:
    labels = dict(LABELS.findall(METRICS_PAGE.read_text()))
    for fault, _, shown, _ in faults():
        named = METRIC.findall(shown)
        assert named or "no metric" in shown or shown.startswith("as above"), fault
        for name, given in named:
            known = labels[name.removesuffix("_count")]
            assert all(f"`{label}`" in known for label in re.findall(r"(\w+)=", given)), (
                fault,
                name,
            )


def test_every_fault_names_a_test() -> None:
    assert all(NAMED.search(tests) for *_, tests in faults())
    told = " ".join(fault for fault, *_ in faults())
    for fault in re.split(r"[,;]\s+", FAULTS.strip()):
        assert fault.replace("\n", " ") in told, fault
