"""One queued explanation, computed from a record's own pieces: what a worker's child runs."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import orjson

from explainers.base import Explainer, ExplainerError, IntArray
from explainers.sampled.calls import telling_of_calls
from service import answers, reasons
from service.answers import AnswerTemplates, Ranked, strongest
from service.canary import Check, Opinion, is_check, second_opinion
from service.cohorts import NO_COHORTS, Cohorts
from service.compiling import choose_kernel_cache
from service.compute import NotHereError, OnProgress
from service.errors import CommandError, UnknownError
from service.explaining import (
    BROKEN_FIRST,
    Explained,
    ExplainedPart,
    Tally,
    encode_checks,
    explain_rows,
    failure_of,
)
from service.logs import log, place_of
from service.methods import config_digest
from service.models.base import Served
from service.ondemand import Extras, PairedExplainer, explain_otherwise, explainer_by
from service.provenance import header_constants
from service.quality import Findings, Sample, is_sample, measure
from service.reasons import ExplainedRows, ReasonCounts, row_array
from service.registry import RegisteredModel, Registry
from service.registry.building import INLINE_ENGINES
from service.settings import Settings
from service.tasks import Finished, Task

NOT_SHAPLEY = frozenset({"lime", "integrated_gradients"})
VERSIONS_KEPT = 8
ROWS_AT_ONCE = 64
"""Of exact engines' values; calls of the model, and pairs, have one row at a time."""


def compute_task(task: bytes, tell: OnProgress) -> bytes:
    """What the child does: `Task` in, `Finished` out, both encoded; or a canary's check, or a
    sample to measure, and what was found. Settings: the environment's.

    Raises NotHereError where this registry lacks the task's version, or has another of its name.
    """
    if is_check(task):
        return _computer().check(Check.from_bytes(task), tell).to_bytes()
    if is_sample(task):
        return _computer().measure(Sample.from_bytes(task), tell).to_bytes()
    return _computer().compute(Task.from_bytes(task), tell).to_bytes()


def prepare() -> bool:
    """What the child does without a task: `Computer.prepare`."""
    return _computer().prepare()


@lru_cache(maxsize=1)
def _computer() -> "Computer":
    settings = Settings.load()
    choose_kernel_cache(settings.data_dir)
    return Computer(Registry(settings.registry), Cohorts(settings.policy_file))


@dataclass(slots=True, eq=False)
class Computer:
    """Explains tasks with the versions of one registry; keeps the last few loaded."""

    registry: Registry
    cohorts: Cohorts = NO_COHORTS
    _kept: OrderedDict[tuple[str, int], tuple[RegisteredModel, AnswerTemplates]] = field(
        default_factory=OrderedDict
    )
    _prepared: set[tuple[str, int]] = field(default_factory=set)

    def prepare(self) -> bool:
        """Load one serving version that was not tried before; False when there is none.

        The first job of a version would wait for that, and for the imports and kernels it needs:
        up to ten seconds.
        """
        for name in self.registry.layout.names()[:VERSIONS_KEPT]:
            version = self.registry.layout.serving(name)
            if version is None or (name, version) in self._prepared:
                continue
            self._prepared.add((name, version))
            try:
                self._loaded(name, version)
            except NotHereError as error:
                log.warning("model_not_prepared", model=name, version=version, reason=str(error))
            return True
        return False

    def compute(self, task: Task, on_progress: OnProgress) -> Finished:
        """Explain and encode; a failing explainer is a result with its reason.

        Raises NotHereError as `compute_task` does.
        """
        # Golden values are explained again: a model that is slow shows that loading goes on.
        with telling_of_calls(_Pulse(on_progress, len(task.fed)).beat):
            model, templates = self._version(task)
        return explain_task(model, templates, task, on_progress, cohorts=self.cohorts)

    def check(self, check: Check, on_progress: OnProgress) -> Opinion:
        """Have a second engine say what a stored explanation should be.

        Raises NotHereError as `compute_task` does, and what the second engine raises.
        """
        pulse = _Pulse(on_progress, len(check.fed))
        with telling_of_calls(pulse.beat):
            model, _ = self._version(check)
            return second_opinion(model, check)

    def measure(self, sample: Sample, on_progress: OnProgress) -> Findings:
        """Measure how stable and faithful a stored explanation is.

        Raises NotHereError as `compute_task` does, and what the model or its explainer raises.
        """
        pulse = _Pulse(on_progress, 1)
        with telling_of_calls(pulse.beat):
            model, _ = self._version(sample)
            return measure(model, sample, pulse.beat)

    def _version(self, task: Task | Check | Sample) -> tuple[RegisteredModel, AnswerTemplates]:
        model, templates = self._loaded(task.model, task.version)
        if model.digest != task.digest:
            raise NotHereError(f"{task.model}/{task.version} is not {task.digest} here")
        return model, templates

    def _loaded(self, name: str, version: int) -> tuple[RegisteredModel, AnswerTemplates]:
        key = (name, version)
        if key not in self._kept:
            try:
                model = self.registry.load(*key, for_worker=True)
            except UnknownError as error:
                raise NotHereError(str(error)) from error
            except (CommandError, ValueError) as error:
                kind = type(error).__name__
                raise NotHereError(f"{name}/{version}: {error}", kind=kind) from error
            self._kept[key] = (model, AnswerTemplates.of(model))
            while len(self._kept) > VERSIONS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def explain_task(
    model: RegisteredModel,
    templates: AnswerTemplates,
    task: Task,
    on_progress: OnProgress,
    *,
    cohorts: Cohorts = NO_COHORTS,
) -> Finished:
    """`Computer.compute` with a version that is loaded, whatever its digest."""
    pulse = _Pulse(on_progress, len(task.fed))
    # Loading has had the time limit to itself: on a busy machine it takes long enough.
    pulse.beat()
    with telling_of_calls(pulse.beat):
        computed = _computed(_Version(model, templates, cohorts), task, pulse)
    return _finished(model, templates, task, computed)


@dataclass(slots=True)
class _Pulse:
    """Tells how far a task is: after rows, and at every call of the model in between, so that the
    time limit ends what hangs and not what takes long.
    """

    on_progress: OnProgress
    rows: int
    rows_done: int = 0

    def beat(self) -> None:
        """It goes on."""
        self.on_progress({"rows_done": self.rows_done, "rows": self.rows})

    def done(self, rows_done: int) -> None:
        """So many rows are done."""
        self.rows_done = rows_done
        self.beat()


class _Version(NamedTuple):
    """What explains tasks: a loaded version, and the cohorts its reasons may be relative to."""

    model: RegisteredModel
    templates: AnswerTemplates
    cohorts: Cohorts


class _Computed(NamedTuple):
    """What a task gave: the bytes to store, why there is no explanation if so, and its facts."""

    explanation: bytes
    reason: str | None
    tally: Tally
    reasons: ReasonCounts
    seeds: list[int] | None = None
    engine: str | None = None
    is_exact: bool | None = None
    kept: Sequence[str] = BROKEN_FIRST
    """The invariants that apply to it."""


def _computed(version: _Version, task: Task, pulse: _Pulse) -> _Computed:
    """What the task gave, whatever its model raises: that is a reason like others."""
    compute = _otherwise if task.method in NOT_SHAPLEY else _values
    started = time.process_time()
    try:
        return compute(version, task, pulse)
    except ExplainerError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - this task's failure, as of a single row's values
        log.error("explainer_failed", request_id=task.request_id, place=place_of(error))
        reason = failure_of(error)
    spent = Tally([], reason, False, time.process_time() - started, 0)  # noqa: FBT003 - is_explained
    return _failed(version.model, task, reason, spent)


def _values(version: _Version, task: Task, pulse: _Pulse) -> _Computed:
    """Shapley values by the version's own explainer or the one asked for, and checked."""
    model = version.model
    explainer = explainer_by(model, task.method)
    explained = _in_steps(model, explainer, task, pulse)
    part = explained.part(slice(0, len(explained.reasons)))  # fewer than asked if one failed
    used, tally = part.explanation, part.tally()
    if part.reason is not None or used is None:
        return _failed(model, task, part.reason, tally)
    extras = explainer.extras() if isinstance(explainer, PairedExplainer) else {}
    try:
        beside = _reasons(version, task, part, pulse)
        explanation = _complete(version.templates, task, part, {**extras, **beside})
    except Exception as error:  # noqa: BLE001 - whatever cannot be written fails this task only
        log.error("explanation_not_encoded", request_id=task.request_id, place=place_of(error))
        return _failed(model, task, answers.NOT_ENCODED, tally)
    seeds = None if used.seeds is None else used.seeds.tolist()
    counts = ReasonCounts.of(beside)
    return _Computed(explanation, None, tally, counts, seeds, used.engine, used.exact)


def _reasons(version: _Version, task: Task, part: ExplainedPart, pulse: _Pulse) -> reasons.Beside:
    said = task.reasons
    if said is None:
        return reasons.NOTHING
    cohort = None
    if said.adverse:
        if said.rule.cohort_digest is not None:
            pulse.beat()  # its tables may take their time
        cohort = version.cohorts.of(version.model, said.rule)
    rows = ExplainedRows(version.model, part, row_array(task.fed), task.served)
    return reasons.given(said, rows, cohort)


def _in_steps(
    model: RegisteredModel,
    explainer: Explainer | PairedExplainer,
    task: Task,
    pulse: _Pulse,
) -> Explained:
    """A few rows at a time, so that progress shows and a failure ends it early."""
    X, served = task.rows, task.served
    is_quick = explainer.engine in INLINE_ENGINES and not isinstance(explainer, PairedExplainer)
    step = ROWS_AT_ONCE if is_quick else 1
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
        pulse.done(min(start + step, len(X)))
    return Explained.joined(parts)


def _complete(templates: AnswerTemplates, task: Task, part: ExplainedPart, extras: Extras) -> bytes:
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
        queued=answers.Queued(task.method or part.explanation.method, extras),
    )


def _otherwise(version: _Version, task: Task, pulse: _Pulse) -> _Computed:
    """What is no Shapley value, in an object of its own; the arrays stay null."""
    assert task.method is not None
    model, beside = version.model, reasons.without_contributions(task.reasons)
    seeds: IntArray = np.array(task.seeds, dtype=np.int64)
    start, cpu = time.perf_counter(), time.process_time()

    found = explain_otherwise(model, task.method, task.rows, seeds, pulse.done)
    spent = time.process_time() - cpu
    if not found.is_finite:
        tally = Tally([], "finite", True, spent, found.model_evaluations)  # noqa: FBT003
        return _failed(model, task, "finite", tally)
    explanation = answers.encode_other(
        model,
        task.method,
        {**found.extras, **beside},
        request_id=task.request_id,
        seeds=found.seeds,
        model_evaluations=found.model_evaluations,
        duration_seconds=time.perf_counter() - start,
    )
    tally = Tally([], None, True, spent, found.model_evaluations)  # noqa: FBT003 - is_explained
    counts = ReasonCounts.of(beside)
    return _Computed(explanation, None, tally, counts, found.seeds, kept=("finite",))


def _failed(
    model: RegisteredModel, task: Task, reason: str | None, tally: Tally | None = None
) -> _Computed:
    beside = reasons.withheld(task.reasons, "failed", reason)
    explanation = answers.encode_unexplained(
        *(model, "failed", reason),
        lane="queued",
        request_id=task.request_id,
        method=task.method,
        beside=beside,
    )
    nothing = Tally([], reason, False, 0.0, 0)  # noqa: FBT003 - is_explained
    tally, counts = tally or nothing, ReasonCounts.of(beside)
    return _Computed(explanation, reason or "the explainer failed", tally, counts)


def _finished(
    model: RegisteredModel, templates: AnswerTemplates, task: Task, computed: _Computed
) -> Finished:
    completed_at = datetime.now(UTC)
    method = task.method or model.manifest.explainer.method or "none"
    digest = config_digest(model, task.method)
    constants = header_constants(
        model,
        method=method,
        config_digest=digest,
        engine=computed.engine,
        is_exact=computed.is_exact,
        policy_version=task.policy_version,
        retention_class=task.retention_class,
    )
    return Finished(
        status="complete" if computed.reason is None else "failed",
        reason=computed.reason,
        method=method,
        tally=computed.tally,
        tolerance=model.manifest.explainer.tolerance,
        rows=len(task.fed),
        reasons=computed.reasons,
        completed_at=completed_at,
        explanation=computed.explanation,
        checks=encode_checks(computed.reason, kept=computed.kept),
        provenance=answers.encode_provenance(
            templates.explained_by(model, digest),
            lane="queued",
            received_at=task.received_at,
            completed_at=completed_at,
            principal=task.principal,
            seeds=computed.seeds,
            taken=task.taken,
            cpu_seconds=computed.tally.cpu_seconds,
        ),
        header=orjson.dumps(constants),
    )
