"""Every metric that a rule or a dashboard reads is one that the service has."""

from live_app import LiveApp
from observed import families_in, series_in
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from scripts.monitoring.definitions import Clock, load
from scripts.monitoring.rules import Rules
from service.queue_metrics import JobMetrics


def families_of(app: LiveApp) -> set[str]:
    """Of an API and a worker."""
    page = app.client().get("/metrics").body.decode()
    worker = CollectorRegistry()
    JobMetrics(worker)
    ours = {family.name for family in text_string_to_metric_families(page)}
    return ours | {family.name for family in worker.collect()}


def expressions() -> set[str]:
    definitions = load()
    (group,) = Rules(definitions, Clock()).groups()
    queries = {q for d in definitions.dashboards for p in d.panels for q in p.queries.values()}
    return queries | {rule["expr"] for rule in group["rules"]}


def recorded() -> set[str]:
    (group,) = Rules(load(), Clock()).groups()
    return {rule["record"] for rule in group["rules"] if "record" in rule}


def test_every_metric_that_is_read_is_one_of_the_service(live: LiveApp) -> None:
    known = families_of(live) | recorded()
    read = {name for expression in expressions() for name in families_in(expression)}
    assert read <= known
    assert {name for name in read if name.startswith("explain_")}


def test_a_name_in_an_expression_is_found_and_a_label_is_not() -> None:
    expression = 'sum(rate(explain_made_up_total{a="explain_text"}[5m])) / slo:a:b'
    assert series_in(expression) == {"explain_made_up_total", "slo:a:b"}
    assert families_in(expression) == {"explain_made_up", "slo:a:b"}
