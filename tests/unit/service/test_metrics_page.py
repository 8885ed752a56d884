"""docs/metrics.md says what there is."""

import re
from pathlib import Path

from scripts.metrics_page import PAGE, page

ROW = re.compile(r"^\| `((?:explain|http)_\w+)` \|", re.MULTILINE)
README = Path(__file__).parents[3] / "README.md"


def test_the_page_is_what_the_metrics_say() -> None:
    assert PAGE.read_text() == page(), "run: python -m scripts.metrics_page"


def test_the_page_has_every_metric_the_readme_has_and_no_other() -> None:
    found = ROW.findall(PAGE.read_text())
    assert len(found) == len(set(found))
    assert set(found) == set(ROW.findall(README.read_text()))


def test_labels_are_told_and_none_could_name_a_person() -> None:
    labels = set(re.findall(r"`(\w+)`", page().partition("## Buckets")[0]))
    assert "model" in labels
    assert not labels & {"request_id", "user", "subject", "tenant", "instance", "value"}
