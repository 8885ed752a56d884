"""What scripts/test --drills leaves out has its drill."""

import pytest
from small_versions import without_drill


@pytest.mark.small_version_of("test_a_drill_stands_for_its_small_version")
def test_a_small_version_names_a_drill_of_its_file(request: pytest.FixtureRequest) -> None:
    assert without_drill([request.node]) == []


@pytest.mark.drill
def test_a_drill_stands_for_its_small_version(request: pytest.FixtureRequest) -> None:
    assert without_drill([request.node]) == []


@pytest.mark.parametrize(
    "name", ["test_of_another_file", test_a_small_version_names_a_drill_of_its_file.__name__]
)
def test_one_without_a_drill_is_told(request: pytest.FixtureRequest, name: str) -> None:
    request.node.add_marker(pytest.mark.small_version_of(name))
    assert without_drill([request.node]) == [request.node.nodeid]
