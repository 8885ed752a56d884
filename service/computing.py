"""One queued explanation, computed from a record's own pieces: what a worker's child runs."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import orjson

from explainers.base import Explainer, FloatArray, IntArray
from service import answers
from service.answers import AnswerTemplates, Ranked, strongest
from service.compiling import choose_kernel_cache
from service.compute import NotHereError, OnProgress
from service.errors import UnknownError
from service.explaining import Explained, ExplainedPart, explain_rows
from service.logs import log, place_of
from service.models.base import Served
from service.registry import RegisteredModel, Registry
from service.registry.building import INLINE_ENGINES
from service.serving import header_constants
from service.settings import Settings
from service.tasks import Finished, Task

VERSIONS_KEPT = 8
ROWS_AT_ONCE = 64
"""Of exact engines; an explainer that calls the model has one row at a time, and says so."""


def compute_task(task: bytes, tell: OnProgress) -> bytes:
    """What the child does: `Task` in, `Finished` out, both encoded. Settings: the environment's.

    Raises NotHereError where this registry lacks the task's version, or has another of its name.
    """
    return _computer().compute(Task.from_bytes(task), tell).to_bytes()


@lru_cache(maxsize=1)
def _computer() -> "Computer":
    settings = Settings.load()
    choose_kernel_cache(settings.data_dir)
    return Computer(Registry(settings.registry))


@dataclass(slots=True, eq=False)
class Computer:
    """Explains tasks with the versions of one registry; keeps the last few loaded."""

    registry: Registry
    _kept: OrderedDict[tuple[str, int], tuple[RegisteredModel, AnswerTemplates]] = field(
        default_factory=OrderedDict
    )

    def compute(self, task: Task, on_progress: OnProgress) -> Finished:
        """Explain and encode; a failing explainer is a result with its reason.

        Raises NotHereError as `compute_task` does.
        """
        model, templates = self._version(task)
        explainer = model.explainer
        assert explainer is not None
        X, served = task.rows, task.served
        explained = _in_steps(model, explainer, X, served, task, on_progress)
        part = explained.part(slice(0, len(X)))
        return _finished(model, templates, task, part)

    def _version(self, task: Task) -> tuple[RegisteredModel, AnswerTemplates]:
        key = (task.model, task.version)
        if key not in self._kept:
            try:
                model = self.registry.load(*key, for_worker=True)
            except (UnknownError, ValueError) as error:
                raise NotHereError(f"{task.model}/{task.version}: {error}") from error
            self._kept[key] = (model, AnswerTemplates.of(model))
            while len(self._kept) > VERSIONS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        model, templates = self._kept[key]
        if model.digest != task.digest:
            raise NotHereError(f"{task.model}/{task.version} is not {task.digest} here")
        return model, templates


def _in_steps(
    model: RegisteredModel,
    explainer: Explainer,
    X: FloatArray,
    served: Served,
    task: Task,
    on_progress: OnProgress,
) -> Explained:
    """A few rows at a time, so that progress shows and a failure ends it early."""
    step = ROWS_AT_ONCE if explainer.engine in INLINE_ENGINES else 1
    seeds: IntArray = np.array(task.seeds, dtype=np.int64)
    parts: list[Explained] = []
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        own = Served(served.outputs[rows], served.scores[rows])
        part = explain_rows(model, X[rows], own, explainer=explainer, seeds=seeds[rows])
        assert part is not None
        parts.append(part)
        if any(part.reasons):
            break
        on_progress({"rows_done": min(start + step, len(X)), "rows": len(X)})
    return Explained.joined(parts)


def _finished(
    model: RegisteredModel, templates: AnswerTemplates, task: Task, part: ExplainedPart
) -> Finished:
    completed_at = datetime.now(UTC)
    explanation, reason = _encoded(model, templates, task, part)
    used = part.explanation
    assert model.invariants is not None
    return Finished(
        status="complete" if reason is None else "failed",
        reason=reason,
        method=_method(model, task),
        tally=part.tally(),
        tolerance=model.invariants.tolerance,
        completed_at=completed_at,
        explanation=explanation,
        provenance=answers.encode_provenance(
            templates,
            lane="queued",
            received_at=task.received_at,
            completed_at=completed_at,
            principal=task.principal,
            seeds=None if used is None or used.seeds is None else used.seeds.tolist(),
            worker=task.worker,
        ),
        header=orjson.dumps(
            header_constants(
                model,
                method=_method(model, task),
                engine=None if used is None else used.engine,
                is_exact=None if used is None else used.exact,
            )
        ),
    )


def _method(model: RegisteredModel, task: Task) -> str:
    return task.method or model.manifest.explainer.method or "none"


def _encoded(
    model: RegisteredModel, templates: AnswerTemplates, task: Task, part: ExplainedPart
) -> tuple[bytes, str | None]:
    """The explanation's bytes, and why there is none if so."""
    reason = part.reason
    if reason is None and part.explanation is not None:
        try:
            return _complete(templates, task, part), None
        except Exception as error:  # noqa: BLE001 - whatever cannot be written fails this task only
            log.error("explanation_not_encoded", request_id=task.request_id, place=place_of(error))
            reason = answers.NOT_ENCODED
    failed = answers.encode_unexplained(
        model, "failed", reason, lane="queued", request_id=task.request_id, method=task.method
    )
    return failed, reason


def _complete(templates: AnswerTemplates, task: Task, part: ExplainedPart) -> bytes:
    assert part.explanation is not None
    ranked = Ranked.of(part.explanation.values, task.top)
    names = templates.feature_names
    cells = [[instance.get(name) for name in names] for instance in task.instances]
    return answers.encode_explanation(
        templates,
        part,
        task.served.outputs,
        strongest(templates, ranked, part.rows, cells, task.top),
        request_id=task.request_id,
        lane="queued",
    )
