"""docs/faults.md names tests that are there, and says right which of them are drills."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "faults.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`( \(drill\))?")
FAULTS = """
explainer raises, sleeps, holds the GIL, aborts, sums 5 % off; Redis down at start, stopped,
emptied, at maxmemory; worker killed; API killed; disk full; locked for 30 s; a day back or ahead;
slow clients; more requests; five times at once; SIGTERM; hostile bytes; truncated; byte flipped;
pickle; columns swapped; background swapped; edited; deleted; swapped; inserted; old copy;
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
        node.name: are_all or any("mark.drill" in ast.unparse(one) for one in node.decorator_list)
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


def test_every_fault_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith("| fault |")]
    assert all(NAMED.search(row) for row in faults)
    told = " ".join(row.split("|")[1] for row in faults)
    for fault in re.split(r"[,;]\s+", FAULTS.strip()):
        assert fault.replace("\n", " ") in told, fault
