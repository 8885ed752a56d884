import json

import pytest
from pydantic import ValidationError

from schemas.problem import InvalidContentError, Problem, Violation, json_pointer

PROBLEM = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "2 violations",
    "instance": "/predict",
    "request_id": "019aa0c2-0000",
    "errors": [{"pointer": "/instances/0/age", "detail": "is missing", "code": "missing_column"}],
}


def test_a_problem_is_read_as_it_is_written() -> None:
    problem = Problem.model_validate(PROBLEM)
    assert problem.errors == [Violation("/instances/0/age", "is missing", "missing_column")]
    assert problem.model_dump(exclude_unset=True) == PROBLEM


@pytest.mark.parametrize(
    "change",
    [
        {"status": "422"},
        {"input": "x"},
        {"errors": [{"pointer": "", "detail": "", "code": "", "input": 1}]},
        {"errors": [{"pointer": "", "detail": ""}]},
    ],
)
def test_anything_else_in_a_problem_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Problem.model_validate_json(json.dumps(PROBLEM | change))


def test_pointers_escape_tilde_and_slash() -> None:
    assert json_pointer() == ""
    assert json_pointer("a/b", 0, "~1", "") == "/a~1b/0/~01/"


def test_the_exception_counts_its_violations() -> None:
    error = InvalidContentError([Violation("", "must be an object", "wrong_type")])
    assert str(error) == "1 violations"
