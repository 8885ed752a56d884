"""Stored decisions computed again from what is stored of them, by the functions that made them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import orjson

from explainers.base import UnsupportedModelError
from explainers.sampled.calls import telling_of_calls
from explainers.tree.explainer import TreeEngine
from schemas import DecodedBody, InvalidContentError, NotStrictJsonError
from service.answers import AnswerTemplates
from service.auth import Caller
from service.cohorts import NO_COHORTS, Cohorts
from service.comparing import WRITTEN_OTHERWISE, Comparison, compare
from service.compiling import choose_kernel_cache
from service.compute import NotHereError, OnProgress
from service.computing import explain_task
from service.errors import CheckFailedError, PredictionError, UnknownError
from service.evidence import DecisionEvent, Lane, Record, Status
from service.methods import config_digest
from service.metrics import Metrics
from service.planning import INLINE, NOTHING, QUEUED, Plan
from service.preparing import Ask, run
from service.provenance import Taken, provenance_of
from service.recorded_policy import RecordedPolicy
from service.registry import RegisteredModel, Registry
from service.registry.building import ExplainerFactory
from service.registry.libraries import software
from service.registry.registered import naming_of
from service.secrets import Keyring
from service.served import ServedModel
from service.settings import Settings
from service.tasks import Task, asked_of

PREDICTION_PARTS = ("predictions", "outputs", "scores")
COMPUTED = "checks"
"""The part that only explanations have which were computed, whether or not they passed."""

NOT_NUMBERS = ("duration_seconds", "caveat", "links")
"""What of an explanation is another one each time, or no result."""

NOT_NUMBERS_WITHOUT_COHORT = (*NOT_NUMBERS, "reasons")
"""Reasons relative to a cohort that is not at hand cannot be given again."""

LOADING: Mapping[str, object] = {"rows_done": 0}
FAILED = "the model fails on the stored rows"
ERASED = "rows of this record were erased"
UNREADABLE = "the stored rows are no valid input of this version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a replay reads of one record; parts, final: the payloads' pieces, JSON by name.

    final: of the event that ended a queued explanation, None without one.
    """

    tenant: str
    request_id: str
    parent_request_id: str | None
    actor: str
    model: str
    version: int
    status: Status | None
    lane: Lane | None
    received_at: datetime
    header: bytes
    parts: Mapping[str, bytes]
    final: Mapping[str, bytes] | None

    @classmethod
    def of(cls, record: Record) -> Self:
        """Everything that is stored of a request and takes part in its numbers."""
        decision, final = record.decision, record.final
        names = decision.parts.keys() - {"answer"}
        return cls(
            tenant=decision.tenant,
            request_id=decision.request_id,
            parent_request_id=decision.parent_request_id,
            actor=decision.actor,
            model=decision.model,
            version=decision.version,
            status=decision.status,
            lane=decision.lane,
            received_at=decision.received_at,
            header=decision.header,
            parts={name: decision.part(name) for name in names},
            final=None if final is None else {name: final.part(name) for name in final.parts},
        )

    def part(self, name: str) -> bytes:
        """A piece of the decision; KeyError where it has none of that name."""
        return self.parts[name]

    def to_bytes(self) -> bytes:
        """As JSON, for a child."""
        texts = {name: getattr(self, name) for name in self.__slots__}
        texts["header"] = self.header.decode()
        for name in ("parts", "final"):
            pieces: Mapping[str, bytes] | None = texts[name]
            texts[name] = pieces and {part: piece.decode() for part, piece in pieces.items()}
        return orjson.dumps(texts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        fields = orjson.loads(data)
        fields["received_at"] = datetime.fromisoformat(fields["received_at"]).astimezone(UTC)
        fields["header"] = fields["header"].encode()
        for name in ("parts", "final"):
            pieces = fields[name]
            fields[name] = pieces and {part: piece.encode() for part, piece in pieces.items()}
        return cls(**fields)


class _Findings(NamedTuple):
    """What a replay found; None: not compared. reason: why nothing could be."""

    reason: str | None = None
    inputs_equal: bool | None = None
    predictions: Comparison | None = None
    explanation: Comparison | None = None
    differing: tuple[str, ...] = ()


def replay_task(task: bytes, tell: OnProgress) -> bytes:
    """What a child does: `Recorded` in, the report out as JSON. Settings: the environment's."""
    settings = Settings.load()
    choose_kernel_cache(settings.data_dir)
    registry, keyring = Registry(settings.registry), Keyring.open(settings.secret_file)
    cohorts = Cohorts(settings.policy_file)
    return orjson.dumps(replay(Recorded.from_bytes(task), registry, keyring, tell, cohorts=cohorts))


def replay(
    recorded: Recorded,
    registry: Registry,
    keyring: Keyring,
    tell: OnProgress,
    *,
    cohorts: Cohorts = NO_COHORTS,
) -> dict[str, object]:
    """Predict and explain the stored instances again and say whether the same bytes come out.

    equal: the instances decode to what was fed, and predictions, served numbers and the
    explanation's numbers have the recorded bytes. Raises NotHereError where the registry has no
    such version; one that is there and refused is a finding. Cost: loading the version, and what
    the explanation took.
    """
    if None in orjson.loads(recorded.part("instances")):
        return _report(recorded, None, _Findings(reason=ERASED))
    try:
        # Golden values are explained again: a model that is slow shows that loading goes on.
        with telling_of_calls(lambda: tell(LOADING)):
            model = registry.load(recorded.model, recorded.version, for_worker=True)
    except UnknownError as error:
        raise NotHereError(str(error)) from None
    except CheckFailedError as error:
        return _report(recorded, None, _Findings(reason=str(error)))
    policy = RecordedPolicy.of(recorded.parts, model, keyring, cohorts)
    again = _Replay(recorded, model, keyring, policy, cohorts)
    return _report(recorded, model, again.run(tell))


@dataclass(frozen=True, slots=True, eq=False)
class _Replay:
    """One record, and the version that the registry has under its name and number."""

    recorded: Recorded
    model: RegisteredModel
    keyring: Keyring
    policy: RecordedPolicy | None
    cohorts: Cohorts

    def run(self, tell: OnProgress) -> _Findings:
        try:
            body = self._decoded()
        except (NotStrictJsonError, InvalidContentError):
            return _Findings(reason=UNREADABLE, inputs_equal=False)
        event = self._predicted(body)
        if event is None:
            return _Findings(reason=FAILED, inputs_equal=self._is_as_fed(body))
        differing = [] if self._is_same_draw(event) else ["policy_draw"]
        task = self._task(event)
        if task is not None and self._seeds(task) != list(task.seeds):
            differing.append("seed")
        if self.policy is not None:
            differing += self.policy.differing
        return _Findings(
            inputs_equal=self._is_as_fed(body),
            predictions=_compared(self.recorded.parts, _pieces(event), PREDICTION_PARTS),
            explanation=self._explanation(event, task, tell),
            differing=tuple(differing),
        )

    def _decoded(self) -> DecodedBody:
        body = b'{"instances":' + self.recorded.part("instances") + b"}"
        n_rows = len(orjson.loads(self.recorded.part("fed")))
        return self.model.codec.decode(body, max_instances=n_rows)

    def _is_as_fed(self, body: DecodedBody) -> bool:
        instances = self.model.codec.instances_json(body.rows)
        return (orjson.dumps(body.codes), instances) == (
            self.recorded.part("fed"),
            self.recorded.part("instances"),
        )

    def _predicted(self, body: DecodedBody) -> DecisionEvent | None:
        """The decision anew, None where the model fails."""
        served = ServedModel.of(
            with_engine(self.model, _engine_of(self.recorded.part("explanation"))),
            Metrics(),
            retention_days=1,
            policy=None if self.policy is None else self.policy.rules(),
        )
        (prepared,) = run(served, [self._ask(body)])
        return None if isinstance(prepared, PredictionError) else prepared.event

    def _ask(self, body: DecodedBody) -> Ask:
        recorded = self.recorded
        explanation = orjson.loads(recorded.part("explanation"))
        return Ask(
            request_id=recorded.request_id,
            caller=Caller(recorded.actor, recorded.tenant, frozenset(), "none"),
            received_at=recorded.received_at,
            body=body,
            instances=recorded.part("instances"),
            explain=explanation is not None,
            top=len(explanation["top"][0]) if explanation and explanation["top"] else 0,
            fingerprint=orjson.loads(recorded.part("fingerprint")),
            subjects=None,
            plan=self._plan(explanation),
            parent_request_id=recorded.parent_request_id,
        )

    def _plan(self, explanation: Mapping[str, str] | None) -> Plan:
        if explanation is None:
            return NOTHING
        if self.recorded.lane is None:
            return Plan(None, explanation["reason"])
        return QUEUED if self.recorded.lane == "queued" else INLINE

    def _is_same_draw(self, event: DecisionEvent) -> bool:
        """A record made for another one has that one's draw."""
        if "policy" not in self.recorded.parts or self.recorded.parent_request_id is not None:
            return True
        drawn, again = self.recorded.part("policy"), _pieces(event)["policy"]
        return bool(orjson.loads(drawn)["u"] == orjson.loads(again)["u"])

    def _task(self, event: DecisionEvent) -> Task | None:
        """What a worker computed, over what is served now and with the recorded seeds."""
        final = self.recorded.final
        if final is None or COMPUTED not in final:
            return None
        pieces = _pieces(event)
        task = asked_of(self.recorded, self.keyring, taken=Taken("replay", 1, 0.0))
        return replace(
            task,
            fed=orjson.loads(pieces["fed"]),
            outputs=orjson.loads(pieces["outputs"]),
            scores=orjson.loads(pieces["scores"]),
        )

    def _seeds(self, task: Task) -> list[int]:
        """Those recorded; the task's own where there are none."""
        assert self.recorded.final is not None
        seeds: list[int] | None = orjson.loads(self.recorded.final["explanation"])["seed"]
        return list(task.seeds) if seeds is None else seeds

    def _explanation(
        self, event: DecisionEvent, task: Task | None, tell: OnProgress
    ) -> Comparison | None:
        """None where nothing was computed: not asked for, still to come, or ended by others."""
        if self.recorded.status == "pending":
            if task is None or self.recorded.final is None:
                return None
            recorded = self.recorded.final["explanation"]
            model = with_engine(self.model, _engine_of(recorded))
            task = replace(task, seeds=self._seeds(task))
            templates = AnswerTemplates.of(model)
            running = explain_task(model, templates, task, tell, cohorts=self.cohorts).explanation
        elif self.recorded.status is None:
            return None
        else:
            recorded = self.recorded.part("explanation")
            running = _pieces(event)["explanation"]
        left_out: Sequence[str] = NOT_NUMBERS
        if self.policy is not None and self.policy.lacks_cohort:
            left_out = NOT_NUMBERS_WITHOUT_COHORT
        return _compared_but_for_time(recorded, running, left_out)


def with_engine(model: RegisteredModel, engine: str | None) -> RegisteredModel:
    """The version with the engine that was used, where its release can still choose it."""
    if engine not in ("table", "walk") or model.explainer is None or model.engine == engine:
        return model
    try:
        factory = ExplainerFactory.for_model(model.native, naming_of(model.manifest, model.schema))
        tables_or_walk: TreeEngine = "table" if engine == "table" else "walk"
        explainer = factory.build(model.background, engine=tables_or_walk)
    except UnsupportedModelError:
        return model
    return replace(model, explainer=explainer)


def _engine_of(explanation: bytes) -> str | None:
    document = orjson.loads(explanation)
    return None if document is None else document["engine"]


def _pieces(event: DecisionEvent) -> dict[str, bytes]:
    return {name: event.payload[start:end] for name, (start, end) in event.parts.items()}


def _compared(
    recorded: Mapping[str, bytes], running: Mapping[str, bytes], names: tuple[str, ...]
) -> Comparison:
    """Some pieces of a payload together, so that pointers begin with the piece."""
    one, other = (
        b"{" + b",".join(b'"%s":%s' % (name.encode(), pieces[name]) for name in names) + b"}"
        for pieces in (recorded, running)
    )
    return compare(one, other)


def _compared_but_for_time(recorded: bytes, running: bytes, left_out: Sequence[str]) -> Comparison:
    """Two explanations without what is another one each time. That is taken out of the parsed
    document, so a recorded number written in another way than here is looked for as well.
    """
    found = compare(_numbers(recorded, left_out), _numbers(running, left_out))
    if found.equal and orjson.dumps(orjson.loads(recorded)) != recorded:
        return WRITTEN_OTHERWISE
    return found


def _numbers(explanation: bytes, left_out: Sequence[str]) -> bytes:
    document = orjson.loads(explanation)
    return orjson.dumps({name: document[name] for name in document if name not in left_out})


def _report(
    recorded: Recorded, model: RegisteredModel | None, found: _Findings
) -> dict[str, object]:
    stored, running = _provenance(recorded), _running(recorded, model)
    digests = [name for name in running if name.endswith("_digest") and name in stored]
    differing = [name for name in digests if stored[name] != running[name]]
    compared = (found.predictions, found.explanation)
    then, now = _versions(stored), _versions(running)
    return {
        "request_id": recorded.request_id,
        "equal": found.reason is None
        and found.inputs_equal is True
        and not differing
        and "cohort_digest" not in found.differing
        and all(comparison is None or comparison.equal for comparison in compared),
        "reason": found.reason,
        "inputs": None if found.inputs_equal is None else {"equal": found.inputs_equal},
        "predictions": None if found.predictions is None else found.predictions.to_json(),
        "explanation": None if found.explanation is None else found.explanation.to_json(),
        "differing_digests": [*differing, *found.differing],
        "differing_libraries": [
            name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)
        ],
        "recorded": then,
        "running": now,
    }


def _provenance(recorded: Recorded) -> dict[str, Any]:
    """What made the record; a worker's libraries where it was a worker that explained."""
    stored: dict[str, Any] = orjson.loads(recorded.part("provenance"))
    return stored | (orjson.loads(recorded.final["provenance"]) if recorded.final else {})


def _running(recorded: Recorded, model: RegisteredModel | None) -> dict[str, Any]:
    if model is None:
        return software()
    asked = orjson.loads(recorded.parts.get("ask", b"{}")).get("method")
    return provenance_of(model, config_digest=config_digest(model, asked))


def _versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    return {"explaind": provenance["service_version"], **provenance["library_versions"]}
