"""What a load drill found: figures, targets, a Markdown report with plots."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from load_traffic import DECIDING, UNANSWERED, UNSENT, Sent
from svg_plots import Figure
from targets import Target

DEADLINE_SECONDS = 1.0
"""An answer that comes later is of no use to who asked."""

GOODPUT_SHARE = 0.8
LIVEZ_MILLISECONDS = 250
RECOVERY_SECONDS = 5
WINDOW_SECONDS = 0.5
OK = 200
REFUSING = frozenset({429, 503})
GENERATOR_MILLISECONDS = 50
NAMES = {UNSENT: "unsent", UNANSWERED: "unanswered"}

Probe = tuple[float, float, int]
"""When it was due, seconds, status."""


@dataclass(frozen=True)
class Step:
    """One rate of the ramp and its goodput."""

    per_second: float
    good_per_second: float


@dataclass
class Drill:
    """One drill; spans: when each phase began and ended, by the monotonic clock."""

    sent: list[Sent] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """Of the service's process, by phase."""

    is_ready: bool = False
    backlog: float = 0.0
    """After the recovery: records that wait for the evidence store."""

    lost: int = 0
    """Acknowledged predictions that are not in the evidence."""

    @property
    def peak(self) -> float:
        """The best goodput of the ramp, answers a second."""
        return max(step.good_per_second for step in self.steps)

    @property
    def start(self) -> float:
        """When the first phase began."""
        return min(began for began, _ in self.spans.values())

    def of(self, phase: str) -> list[Sent]:
        """What was due in a phase."""
        return [one for one in self.sent if one.phase == phase]

    def goodput(self, phase: str) -> float:
        """Answers of 200 within their deadline, a second."""
        began, ended = self.spans[phase]
        return sum(map(is_good, self.of(phase))) / (ended - began)

    def recovery_seconds(self) -> float:
        """From the end of the burst until the last request that was not answered well was due."""
        _, ended = self.spans["burst"]
        bad = [one.due - ended for one in self.of("recovery") if not is_good(one)]
        return max(bad, default=0.0)

    def livez_milliseconds(self, phase: str, share: float) -> float:
        """Of probes due in a phase; one that failed counts as endless."""
        began, ended = self.spans[phase]
        found = [
            1000 * seconds if status == OK else np.inf
            for due, seconds, status in self.probes
            if began <= due < ended
        ]
        return float(np.percentile(found, 100 * share, method="higher"))

    def bare_refusals(self) -> int:
        """Refusals that do not say when to come back, or are no problem document."""
        return sum(
            one.status in REFUSING and not (one.retry_after and one.is_problem) for one in self.sent
        )


def is_good(sent: Sent) -> bool:
    """It was answered, in time."""
    return sent.status == OK and sent.seconds <= DEADLINE_SECONDS


def lost_records(database: Path, sent: Sequence[Sent]) -> int:
    """Predictions that were answered 200 and are not in the evidence."""
    connection = sqlite3.connect(database)
    query = "SELECT request_id FROM events WHERE event_type = 'decision'"
    stored = {request_id for (request_id,) in connection.execute(query)}
    connection.close()
    acknowledged = {one.request_id for one in sent if one.status == OK and one.kind in DECIDING}
    return len(acknowledged - stored)


def targets(drill: Drill) -> Iterator[Target]:
    """What the drill has to show."""
    share = drill.goodput("burst") / drill.peak
    yield Target("goodput in the burst, share of the peak", GOODPUT_SHARE, share)
    p99 = drill.livez_milliseconds("burst", 0.99)
    yield Target("/livez p99 in the burst, ms", LIVEZ_MILLISECONDS, p99, is_least=False)
    recovery = drill.recovery_seconds()
    yield Target("recovery after the burst, s", RECOVERY_SECONDS, recovery, is_least=False)
    bare = drill.bare_refusals()
    yield Target("refusals without Retry-After", 0, bare, is_least=False)
    yield Target("acknowledged records lost", 0, drill.lost, is_least=False)
    for name, statuses in (("unanswered or reset", {UNANSWERED}), ("answered 500", {500})):
        count = sum(one.status in statuses for one in drill.sent)
        yield Target(f"requests {name}", 0, count, is_least=False)
    late = [1000 * one.late_seconds for one in drill.of("burst")]
    late_p99 = float(np.percentile(late, 99))
    what = "the generator's own lateness in the burst, p99 ms"
    yield Target(what, GENERATOR_MILLISECONDS, late_p99, is_least=False)


def summary(drill: Drill) -> str:
    """The phases as a Markdown table."""
    lines = [
        "| phase | sent/s | good/s | p50 ms | p99 ms | /livez p99 ms | CPU s | statuses |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for phase, (began, ended) in drill.spans.items():
        sent = drill.of(phase)
        good = [1000 * one.seconds for one in sent if one.status == OK]
        p50, p99 = np.percentile(good, [50, 99]) if good else (np.nan, np.nan)
        lines.append(
            f"| {phase} | {len(sent) / (ended - began):,.0f} | {drill.goodput(phase):,.0f} | "
            f"{p50:.1f} | {p99:.1f} | {drill.livez_milliseconds(phase, 0.99):.1f} | "
            f"{drill.cpu_seconds.get(phase, np.nan):.1f} | {_statuses(sent)} |"
        )
    return "\n".join(lines)


def _statuses(sent: Sequence[Sent]) -> str:
    counts = Counter(NAMES.get(one.status, str(one.status)) for one in sent)
    return ", ".join(f"{count:,} x {status}" for status, count in sorted(counts.items()))


def write(folder: Path, drill: Drill, facts: str) -> None:
    """report.md, figures.json and one SVG for each plot."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = _figures(drill)
    for name, figure in figures.items():
        (folder / f"{name}.svg").write_text(figure.svg())
    (folder / "figures.json").write_text(json.dumps(_document(drill, facts, figures), indent=1))
    (folder / "report.md").write_text(_report(drill, facts, figures))


def _report(drill: Drill, facts: str, figures: dict[str, Figure]) -> str:
    kinds = Counter((one.kind, one.status) for one in drill.of("burst"))
    burst = [
        f"| {kind} | {NAMES.get(status, status)} | {count:,} |"
        for (kind, status), count in sorted(kinds.items())
    ]
    ramp = [f"| {step.per_second:,.0f} | {step.good_per_second:,.0f} |" for step in drill.steps]
    parts = [
        "# Load drill",
        facts,
        f"Good: answered 200 within {DEADLINE_SECONDS:g} s of when it was due.",
        "```\n" + "\n".join(map(str, targets(drill))) + "\n```",
        summary(drill),
        "## The ramp",
        "\n".join(["| sent/s | good/s |", "|---|---|", *ramp]),
        "## The burst, by kind",
        "\n".join(["| kind | status | requests |", "|---|---|---|", *burst]),
        "## Over time",
        *(f"![{figure.title}]({name}.svg)" for name, figure in figures.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _document(drill: Drill, facts: str, figures: dict[str, Figure]) -> dict[str, object]:
    return {
        "machine": facts,
        "targets": [
            {"what": t.what, "bound": t.bound, "reached": t.reached, "met": bool(t.is_met)}
            for t in targets(drill)
        ],
        "peak_per_second": drill.peak,
        "is_ready": drill.is_ready,
        "backlog": drill.backlog,
        "ramp": [[step.per_second, step.good_per_second] for step in drill.steps],
        "phases": {
            phase: {
                "began_seconds": began - drill.start,
                "ended_seconds": ended - drill.start,
                "sent": len(drill.of(phase)),
                "good_per_second": drill.goodput(phase),
                "livez_p50_milliseconds": drill.livez_milliseconds(phase, 0.5),
                "livez_p99_milliseconds": drill.livez_milliseconds(phase, 0.99),
                "cpu_seconds": drill.cpu_seconds.get(phase),
                "statuses": Counter(f"{one.kind} {one.status}" for one in drill.of(phase)),
            }
            for phase, (began, ended) in drill.spans.items()
        },
        "over_time": {name: figure.lines for name, figure in figures.items()},
    }


def _figures(drill: Drill) -> dict[str, Figure]:
    """By file name; each point stands for the requests due in one window."""
    windows = _by_window(drill)
    spans = {
        name: (began - drill.start, ended - drill.start)
        for name, (began, ended) in drill.spans.items()
    }

    def line(value: Callable[[list[Sent]], float | None]) -> list[tuple[float, float]]:
        found = ((at, value(sent)) for at, sent in windows)
        return [(at, number) for at, number in found if number is not None]

    refused = sorted({one.status for one in drill.sent} - {OK})
    return {
        "goodput": Figure(
            "Sent and answered well",
            "requests/s",
            {"sent": line(_rate(lambda _: True)), "good": line(_rate(is_good))},
            spans,
        ),
        "refusals": Figure(
            "Not answered 200",
            "requests/s",
            {
                str(NAMES.get(s, s)): line(_rate(lambda one, s=s: one.status == s))  # type: ignore[misc]
                for s in refused
            },
            spans,
        ),
        "latency": Figure(
            "Latency of what was answered 200",
            "ms",
            {"p50": line(_latency(50)), "p99": line(_latency(99))},
            spans,
        ),
        "livez": Figure("/livez, each probe", "ms", {"/livez": _probe_line(drill)}, spans),
    }


def _by_window(drill: Drill) -> list[tuple[float, list[Sent]]]:
    windows: dict[int, list[Sent]] = {}
    for one in drill.sent:
        windows.setdefault(int((one.due - drill.start) / WINDOW_SECONDS), []).append(one)
    return [(number * WINDOW_SECONDS, windows[number]) for number in sorted(windows) if number >= 0]


def _rate(counts: Callable[[Sent], bool]) -> Callable[[list[Sent]], float]:
    return lambda sent: sum(map(counts, sent)) / WINDOW_SECONDS


def _latency(percent: float) -> Callable[[list[Sent]], float | None]:
    def value(sent: list[Sent]) -> float | None:
        times = [1000 * one.seconds for one in sent if one.status == OK]
        return float(np.percentile(times, percent)) if times else None

    return value


def _probe_line(drill: Drill) -> list[tuple[float, float]]:
    return [
        (due - drill.start, 1000 * seconds)
        for due, seconds, status in drill.probes
        if status == OK and due >= drill.start
    ]
