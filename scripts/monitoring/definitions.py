"""What deploy/slos.yml says, read and checked: promises, alerts, dashboards."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "deploy" / "slos.yml"
SEVERITIES = ("ticket", "page")
"""From the one that waits till morning to the one that wakes."""

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"\[(\d+[smhd])\]")
_SECONDS = re.compile(r"\$\{(\d+[smhd])\}")


@dataclass(frozen=True, slots=True)
class Clock:
    """How long a window is: as written, or shorter by one factor for all."""

    factor: float = 1.0

    def seconds(self, written: str) -> float:
        """The length of `5m`."""
        return int(written[:-1]) * UNIT_SECONDS[written[-1]] * self.factor

    def window(self, written: str) -> str:
        """`5m` as Prometheus reads it: unchanged, or in milliseconds."""
        return written if self.factor == 1 else f"{round(self.seconds(written) * 1000)}ms"

    def expression(self, written: str) -> str:
        """An expression with its windows and its `${2m}` in place."""
        ranged = _WINDOW.sub(lambda found: f"[{self.window(found[1])}]", written)
        return _SECONDS.sub(lambda found: f"{self.seconds(found[1]):g}", ranged).strip()


@dataclass(frozen=True, slots=True)
class Advice:
    """What the runbook says about an alert."""

    means: str
    look: str
    act: str


@dataclass(frozen=True, slots=True)
class Burn:
    """A pair of windows in which a budget must burn that fast."""

    severity: str
    factor: float
    long: str
    short: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Counters of what went wrong and of all there was."""

    bad: str
    total: str

    def rates(self, window: str) -> tuple[str, str]:
        """Bad and all events a second over a window."""
        return f"sum(rate({self.bad}[{window}]))", f"sum(rate({self.total}[{window}]))"


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram, and the edge that what is good does not exceed."""

    metric: str
    selector: str
    within_seconds: float

    def rates(self, window: str) -> tuple[str, str]:
        """As of Ratio."""
        edge = f'le="{float(self.within_seconds)}"'
        total = f"sum(rate({self.metric}_count{{{self.selector}}}[{window}]))"
        good = f"sum(rate({self.metric}_bucket{{{self.selector}, {edge}}}[{window}]))"
        return f"({total} - {good})", total


@dataclass(frozen=True, slots=True)
class Promise:
    """A service level objective. objective: percent. examples: labels of series, for tests."""

    name: str
    alert: str
    objective: float
    says: str
    indicator: Ratio | Latency
    hidden_by: tuple[str, ...]
    advice: Advice
    example: Mapping[str, str]
    bad_example: Mapping[str, str]
    good_example: Mapping[str, str]

    @property
    def budget(self) -> float:
        """The share that may go wrong."""
        return round(1 - self.objective / 100, 8)


@dataclass(frozen=True, slots=True)
class Case:
    """Series of samples a minute apart, and the labels with which the alert fires by then."""

    at: str
    series: Mapping[str, str]
    fires: tuple[Mapping[str, str], ...]
    is_alone: bool


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition of its own. holds_for: how long it must hold, as written; empty: at once."""

    name: str
    severity: str
    says: str
    expression: str
    holds_for: str
    hidden_by: tuple[str, ...]
    advice: Advice
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """queries: by the legend of their series."""

    title: str
    kind: str
    unit: str
    says: str
    queries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page of panels."""

    name: str
    title: str
    refresh: str
    range: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Definitions:
    """All of the file."""

    service: str
    owner: str
    runbook: str
    burns: tuple[Burn, ...]
    promises: tuple[Promise, ...]
    alerts: tuple[Alert, ...]
    dashboards: tuple[Dashboard, ...]

    def __post_init__(self) -> None:
        names = [*(p.alert for p in self.promises), *(a.name for a in self.alerts)]
        if len(set(names)) < len(names):
            raise ValueError("two alerts have one name")
        for one in (*self.promises, *self.alerts):
            if unknown := set(one.hidden_by) - set(names):
                raise ValueError(f"hidden by alerts that do not exist: {sorted(unknown)}")
        severities = {one.severity for one in (*self.burns, *self.alerts)}
        if not severities <= set(SEVERITIES):
            raise ValueError(f"severities are {SEVERITIES}: {sorted(severities)}")

    @property
    def windows(self) -> tuple[str, ...]:
        """Every window a burn is measured over, the shortest first."""
        found = {window for burn in self.burns for window in (burn.short, burn.long)}
        return tuple(sorted(found, key=Clock().seconds))


def load(source: Path = SOURCE) -> Definitions:
    """Read the file. Raises KeyError, TypeError or ValueError for what lacks."""
    said = yaml.safe_load(source.read_text())
    return Definitions(
        service=said["service"],
        owner=said["owner"],
        runbook=said["runbook"],
        burns=tuple(Burn(**burn) for burn in said["burn_rates"]),
        promises=tuple(map(_promise, said["slos"])),
        alerts=tuple(map(_alert, said["alerts"])),
        dashboards=tuple(map(_dashboard, said["dashboards"])),
    )


def _advice(said: Mapping[str, Any]) -> Advice:
    advice = Advice(**said)
    if not all((advice.means, advice.look, advice.act)):
        raise ValueError("a runbook entry says what it means, where to look and what to do")
    return advice


def _promise(said: Mapping[str, Any]) -> Promise:
    if "histogram" in said:
        metric, _, selector = said["histogram"].rstrip("}").partition("{")
        indicator: Ratio | Latency = Latency(metric, selector, said["within_seconds"])
    else:
        indicator = Ratio(said["bad"], said["total"])
    return Promise(
        name=said["name"],
        alert=said["alert"],
        objective=said["objective"],
        says=said["says"],
        indicator=indicator,
        hidden_by=tuple(said.get("hidden_by", ())),
        advice=_advice(said["runbook"]),
        example=said["example"],
        bad_example=said.get("bad_example", {}),
        good_example=said.get("good_example", {}),
    )


def _alert(said: Mapping[str, Any]) -> Alert:
    return Alert(
        name=said["alert"],
        severity=said["severity"],
        says=said["says"],
        expression=said["expr"],
        holds_for=said.get("for", ""),
        hidden_by=tuple(said.get("hidden_by", ())),
        advice=_advice(said["runbook"]),
        cases=tuple(map(_case, said["cases"])),
    )


def _case(said: Mapping[str, Any]) -> Case:
    if not all(isinstance(values, str) for values in said["series"].values()):
        raise TypeError(f"quote the samples: YAML reads 0x20 as a number: {said['series']}")
    fires: Sequence[Mapping[str, str]] = said.get("fires", ())
    return Case(said["at"], said["series"], tuple(fires), said.get("alone", False))


def _dashboard(said: Mapping[str, Any]) -> Dashboard:
    panels = tuple(
        Panel(
            title=panel["title"],
            kind=panel["type"],
            unit=panel["unit"],
            says=panel.get("says", ""),
            queries=panel["queries"],
        )
        for panel in said["panels"]
    )
    return Dashboard(said["name"], said["title"], said["refresh"], said["range"], panels)
