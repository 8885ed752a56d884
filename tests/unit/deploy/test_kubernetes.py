"""The manifests: valid, restricted, and naming nothing that is not there."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from deployment import BASE, DEPLOY, KEDA, ROOT, Document, documents, manifests, values_of
from fastapi.routing import iter_route_contexts
from typer.main import get_command

from service.app import create_app
from service.cli import app
from service.queue.server import GROUP, STREAMS
from service.server import GRACE_SECONDS
from service.settings import PREFIX, Settings
from service.worker.running import GRACE_SECONDS as WORKER_GRACE_SECONDS

CLOSING_SECONDS = 10
VERSIONS = ("1.30", "1.37")
DEPLOYMENTS = ("explaind-api", "explaind-worker")
OUTSIDE = {"explaind-keys", "explaind-connections", "explaind-metrics-key", "explaind-keda"}
"""Secrets that docs/deployment.md says how to make."""

TEXT = {"type": "string", "minLength": 1}
DIGITS = {"type": "string", "pattern": "^[0-9]+$"}


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


SELECTOR = closed({"matchLabels": {"type": "object"}})
REFERENCE = closed({"name": TEXT, "key": TEXT})
CUSTOM = {
    # As far as the fields are used here, from the operators' API references.
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        {
            "selector": SELECTOR,
            "endpoints": array(
                closed(
                    {"port": TEXT, "path": TEXT, "interval": TEXT},
                    authorization=closed({"type": TEXT, "credentials": REFERENCE}),
                )
            ),
        }
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed(
        {
            "groups": array(
                closed(
                    {
                        "name": TEXT,
                        "rules": array(
                            closed(
                                {"expr": TEXT},
                                record=TEXT,
                                alert=TEXT,
                                keep_firing_for=TEXT,
                                labels={"type": "object"},
                                annotations={"type": "object"},
                                **{"for": TEXT},
                            )
                        ),
                    },
                    interval=TEXT,
                )
            )
        }
    ),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): closed(
        {"secretTargetRef": array(closed({"parameter": TEXT, "name": TEXT, "key": TEXT}))}
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): closed(
        {
            "scaleTargetRef": closed({"name": TEXT}),
            "minReplicaCount": {"type": "integer", "minimum": 0},
            "maxReplicaCount": {"type": "integer", "minimum": 1},
            "pollingInterval": {"type": "integer"},
            "cooldownPeriod": {"type": "integer"},
            "triggers": array(
                closed(
                    {
                        "type": {"const": "redis-streams"},
                        "metadata": closed(
                            {"stream": TEXT, "consumerGroup": TEXT},
                            lagCount=DIGITS,
                            activationLagCount=DIGITS,
                            pendingEntriesCount=DIGITS,
                        ),
                        "authenticationRef": closed({"name": TEXT}),
                    }
                )
            ),
        }
    ),
}


def validate(manifest: Document, version: str) -> None:
    """Raises ValidationError for a manifest that Kubernetes, or the operator, would refuse."""
    custom = CUSTOM.get((manifest["apiVersion"], manifest["kind"]))
    if custom is None:
        kubernetes_validate.validate(manifest, version, strict=True)
    else:
        jsonschema.validate(manifest["spec"], custom)


COMMANDS = documents(DEPLOY / "kubernetes" / "commands" / "pod.yaml")[0]
ALL = {**manifests(BASE), **manifests(KEDA), ("Pod", "explaind-commands"): COMMANDS}


def deployment(name: str) -> Document:
    return ALL["Deployment", name]


def pod(name: str) -> Document:
    spec: Document = deployment(name)["spec"]["template"]["spec"]
    return spec


def container(name: str) -> Document:
    (only,) = pod(name)["containers"]
    return dict(only)


def labels(name: str) -> dict[str, str]:
    found: dict[str, str] = deployment(name)["spec"]["template"]["metadata"]["labels"]
    return found


def selected(selector: dict[str, str]) -> list[str]:
    """The deployments whose pods a selector means."""
    return [name for name in DEPLOYMENTS if selector.items() <= labels(name).items()]


def settings() -> dict[str, str]:
    return values_of((BASE / "settings.env").read_text())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ALL, ids="-".join)
def test_every_manifest_is_valid(name: tuple[str, str], version: str) -> None:
    validate(ALL[name], version)


@pytest.mark.parametrize("name", ALL, ids="-".join)
def test_a_misspelt_field_is_refused(name: tuple[str, str]) -> None:
    broken = copy.deepcopy(ALL[name])
    part = next((broken[key] for key in ("spec",) if key in broken), broken)
    part["containrs"] = part.pop("containers", 1)
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        validate(broken, VERSIONS[-1])


@pytest.mark.parametrize("folder", [BASE, KEDA], ids=lambda folder: folder.name)
def test_a_kustomization_lists_the_files_there_are(folder: Path) -> None:
    (listed,) = documents(folder / "kustomization.yaml")
    generated = [env for made in listed.get("configMapGenerator", ()) for env in made["envs"]]
    own = {name for name in [*listed["resources"], *generated] if not name.startswith("..")}
    assert own == {file.name for file in folder.iterdir()} - {"kustomization.yaml"}
    above = [folder / name for name in listed["resources"] if name.startswith("..")]
    assert all((path / "kustomization.yaml").is_file() for path in above)


def test_settings_are_settings() -> None:
    known = {PREFIX + name.upper() for name in Settings.names()}
    assert set(settings()) <= known
    assert Settings.load(settings()).host == "0.0.0.0"


def test_arguments_are_commands_and_options() -> None:
    commands: Any = get_command(app)
    for name in DEPLOYMENTS:
        command, *options = container(name)["args"]
        known = {option for p in commands.commands[command].params for option in p.opts}
        assert {word for word in options if word.startswith("--")} <= known


def test_every_path_of_the_settings_is_on_a_volume_that_is_there() -> None:
    paths = [value for value in settings().values() if value.startswith("/")]
    assert paths
    for name in DEPLOYMENTS:
        mounts = container(name)["volumeMounts"]
        assert {mount["name"] for mount in mounts} == {v["name"] for v in pod(name)["volumes"]}
        for path in paths:
            assert any(path.startswith(mount["mountPath"]) for mount in mounts), path


def named_secrets(node: object) -> Iterator[str]:
    """Every name of a secret anywhere in a manifest."""
    if isinstance(node, list):
        for item in node:
            yield from named_secrets(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "secretName":
                yield value
            elif key in {"secretRef", "secretKeyRef", "credentials"}:
                yield value["name"]
            elif key == "secretTargetRef":
                yield from (item["name"] for item in value)
            else:
                yield from named_secrets(value)


def test_every_secret_is_one_the_page_says_how_to_make() -> None:
    assert set(itertools.chain.from_iterable(map(named_secrets, ALL.values()))) == OUTSIDE
    page = (ROOT / "docs" / "deployment.md").read_text()
    for name in OUTSIDE:
        assert f"create secret generic {name}" in page
    for value in settings().values():
        if value.startswith("/run/secrets/"):
            assert f"--from-file={Path(value).name}" in page


def test_accounts_claims_and_settings_exist() -> None:
    (listed,) = documents(BASE / "kustomization.yaml")
    made = {item["name"] for item in listed["configMapGenerator"]}
    for name in DEPLOYMENTS:
        assert ("ServiceAccount", pod(name)["serviceAccountName"]) in ALL
        claims = [
            v["persistentVolumeClaim"]
            for v in pod(name)["volumes"]
            if len(v) > 1 and "persistentVolumeClaim" in v
        ]
        assert claims
        assert all(("PersistentVolumeClaim", claim["claimName"]) in ALL for claim in claims)
        sources = container(name)["envFrom"]
        assert {s["configMapRef"]["name"] for s in sources if "configMapRef" in s} <= made


def test_whatever_selects_pods_means_one_deployment() -> None:
    for (kind, name), manifest in ALL.items():
        spec = manifest.get("spec", {})
        if kind == "Service":
            assert len(selected(spec["selector"])) == 1, name
        elif kind in {"PodDisruptionBudget", "Deployment"}:
            assert len(selected(spec["selector"]["matchLabels"])) == 1, name
        elif kind == "NetworkPolicy":
            assert len(selected(spec["podSelector"]["matchLabels"])) == 1, name
        elif kind == "HorizontalPodAutoscaler":
            assert ("Deployment", spec["scaleTargetRef"]["name"]) in ALL
    for name in DEPLOYMENTS:
        spread = pod(name)["topologySpreadConstraints"]
        assert all(selected(s["labelSelector"]["matchLabels"]) == [name] for s in spread)


def test_ports_are_named_where_they_are_opened() -> None:
    for (kind, _), manifest in ALL.items():
        if kind == "Service":
            (name,) = selected(manifest["spec"]["selector"])
            opened = {port["name"] for port in container(name)["ports"]}
            assert {port["targetPort"] for port in manifest["spec"]["ports"]} <= opened
    for name in DEPLOYMENTS:
        only = container(name)
        opened = {port["name"] for port in only["ports"]}
        probes = [probe for key, probe in only.items() if key.endswith("Probe")]
        assert {probe["httpGet"]["port"] for probe in probes} <= opened
    assert container("explaind-api")["ports"][0]["containerPort"] == int(
        settings()["EXPLAIND_PORT"]
    )
    worker = container("explaind-worker")
    assert str(worker["ports"][0]["containerPort"]) in worker["args"]


def test_prometheus_asks_services_there_are() -> None:
    services = [manifest for (kind, _), manifest in ALL.items() if kind == "Service"]
    for (kind, name), manifest in ALL.items():
        if kind != "ServiceMonitor":
            continue
        wanted = manifest["spec"]["selector"]["matchLabels"].items()
        (service,) = [s for s in services if wanted <= s["metadata"]["labels"].items()]
        assert service["metadata"]["name"] in {name, "explaind"}
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in manifest["spec"]["endpoints"]} <= ports


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_are_restricted_and_write_only_to_volumes(name: str) -> None:
    assert (
        ALL["Namespace", "explaind"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    of_pod, of_container = pod(name)["securityContext"], container(name)["securityContext"]
    assert of_pod["runAsNonRoot"]
    assert of_pod["runAsUser"] == of_pod["fsGroup"] == 10001
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["readOnlyRootFilesystem"] is True
    assert of_container["capabilities"] == {"drop": ["ALL"]}
    assert pod(name)["automountServiceAccountToken"] is False


def test_probes_ask_routes_there_are_and_liveness_never_the_databases(tmp_path: Path) -> None:
    served = create_app(Settings(data_dir=tmp_path)).routes
    routes = {route.path for route in iter_route_contexts(served)}
    api = container("explaind-api")
    paths = {key: p["httpGet"]["path"] for key, p in api.items() if key.endswith("Probe")}
    assert paths == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert set(paths.values()) <= routes


def test_nobody_is_killed_before_the_service_has_had_its_time_to_end() -> None:
    drain = Settings.load(settings()).drain_seconds
    assert drain > 0
    readiness = container("explaind-api")["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < drain
    api = pod("explaind-api")["terminationGracePeriodSeconds"]
    assert api >= drain + GRACE_SECONDS + CLOSING_SECONDS
    worker = pod("explaind-worker")["terminationGracePeriodSeconds"]
    assert worker >= WORKER_GRACE_SECONDS + CLOSING_SECONDS


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_new_pod_is_there_before_an_old_one_goes(name: str) -> None:
    rolling = deployment(name)["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


def test_who_scales_is_the_only_one_to_say_how_many() -> None:
    assert "replicas" not in deployment("explaind-api")["spec"]
    assert ALL["HorizontalPodAutoscaler", "explaind-api"]["spec"]["minReplicas"] >= 2
    (overlay,) = documents(KEDA / "kustomization.yaml")
    (patch,) = overlay["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": "explaind-worker"}
    assert "path: /spec/replicas" in patch["patch"]
    assert ALL["ScaledObject", "explaind-worker"]["spec"]["minReplicaCount"] == 0


def test_workers_are_scaled_by_the_queue_there_is() -> None:
    spec = ALL["ScaledObject", "explaind-worker"]["spec"]
    assert ("Deployment", spec["scaleTargetRef"]["name"]) in ALL
    asked = set()
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        assert metadata["consumerGroup"] == GROUP
        assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in ALL
        kind = "pending" if "pendingEntriesCount" in metadata else "lag"
        assert ("lagCount" in metadata) == (kind == "lag")
        asked.add((metadata["stream"], kind))
    assert asked == set(itertools.product(STREAMS.values(), ("lag", "pending")))
