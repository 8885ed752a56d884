"""The definitive reading of a request body: every refusal, with its pointer and its word."""

from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from schemas.model_schema import Level
from schemas.problem import MAX_VIOLATIONS, InvalidContentError, Violation, json_pointer
from schemas.strict_json import loads

Row = tuple[Level | None, ...]
"""Validated values of one instance in schema order; None is missing."""

MAX_SUBJECT_LENGTH = 256
_MEMBERS = frozenset({"instances", "subjects"})


@dataclass(frozen=True, slots=True)
class Content:
    """What a valid request body holds."""

    rows: list[Row]
    subjects: list[str | None] | None


@dataclass(frozen=True, slots=True)
class DefinitiveReader:
    """Reads bodies one value at a time; row_type is the type of one instance of these names."""

    row_type: type[BaseModel]
    names: frozenset[str]

    def read(self, body: bytes, *, max_instances: int) -> Content:
        """Rows and subjects of the body.

        Raises NotStrictJsonError first, then InvalidContentError with up to MAX_VIOLATIONS.
        """
        document = loads(body)
        if not isinstance(document, dict):
            raise InvalidContentError([Violation("", "must be an object", "wrong_type")])
        instances = _instances(document, max_instances)
        rows: list[Row] = []
        found = _stray_members(document)
        for index, instance in enumerate(instances):
            if len(found) >= MAX_VIOLATIONS:
                break
            rows += self._row(index, instance, found)
        subjects = _subjects(document, len(instances), found)
        if found:
            raise InvalidContentError(found[:MAX_VIOLATIONS])
        return Content(rows, subjects)

    def _row(self, index: int, instance: object, found: list[Violation]) -> list[Row]:
        here = json_pointer("instances", index)
        if not isinstance(instance, dict):
            found.append(Violation(here, "must be an object", "wrong_type"))
            return []
        known = {name: value for name, value in instance.items() if name in self.names}
        if len(known) < len(instance):
            found.append(Violation(here, "holds an unknown column", "unknown_column"))
        refused = None
        try:
            row = self.row_type.model_validate(known)
        except ValidationError as error:
            refused = error
        if refused is not None:
            found += _violations(refused, here)
            return []
        return [tuple(vars(row).values())]


def _instances(document: dict[str, object], max_instances: int) -> list[object]:
    instances = document.get("instances", [])
    if not isinstance(instances, list):
        raise InvalidContentError([Violation("/instances", "must be an array", "wrong_type")])
    if not instances:
        raise InvalidContentError(
            [Violation("/instances", "must hold at least one instance", "no_instances")]
        )
    if len(instances) > max_instances:
        detail = f"must hold at most {max_instances} instances"
        raise InvalidContentError([Violation("/instances", detail, "too_many_instances")])
    return instances


def _stray_members(document: dict[str, object]) -> list[Violation]:
    if document.keys() <= _MEMBERS:
        return []
    return [Violation("", "holds a member beside instances and subjects", "unknown_member")]


def _violations(error: ValidationError, here: str) -> list[Violation]:
    return [
        _violation(here + json_pointer(*item["loc"]), item["msg"], item["type"])
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _violation(pointer: str, detail: str, code: str) -> Violation:
    if code == "missing":
        return Violation(pointer, "is missing", "missing_column")
    return Violation(pointer, detail, code)


def _subjects(
    document: dict[str, object], n_instances: int, found: list[Violation]
) -> list[str | None] | None:
    if "subjects" not in document:
        return None
    subjects = document["subjects"]
    if not isinstance(subjects, list):
        found.append(Violation("/subjects", "must be an array", "wrong_type"))
        return None
    if len(subjects) != n_instances:
        found.append(Violation("/subjects", "must name one per instance", "wrong_length"))
        return None
    return [subject for index, subject in enumerate(subjects) if _is_subject(index, subject, found)]


def _is_subject(index: int, subject: object, found: list[Violation]) -> bool:
    pointer = json_pointer("subjects", index)
    if subject is None:
        return True
    if not isinstance(subject, str):
        found.append(Violation(pointer, "must be text or null", "not_text"))
        return False
    if not 1 <= len(subject) <= MAX_SUBJECT_LENGTH:
        detail = f"must have 1 to {MAX_SUBJECT_LENGTH} characters"
        found.append(Violation(pointer, detail, "wrong_length"))
        return False
    return True
