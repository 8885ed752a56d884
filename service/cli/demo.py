"""`explaind demo`: from nothing to an explained prediction on real data."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import DataDir, print_text, say

if TYPE_CHECKING:
    from service.registry import Registry
    from service.server import Ready

MODEL = "breast_cancer"
BAR = 24


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after one prediction.")] = False,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Register a model on real data bundled with scikit-learn, serve it, explain one prediction."""
    from service.compiling import choose_kernel_cache
    from service.settings import Settings

    settings = Settings.load(data_dir=data_dir, port=port, model=MODEL)
    choose_kernel_cache(settings.data_dir)
    from service.registry import Registry
    from service.server import run_server

    registry = Registry(settings.registry)
    if registry.layout.serving(MODEL) is None:
        _register(registry)
    failures: list[Exception] = []
    run_server(
        settings,
        on_ready=lambda ready: _show_in_thread(ready, failures, once=once),
        log_level="WARNING",
    )
    if failures:
        from service.errors import CheckFailedError

        raise CheckFailedError(f"the demonstration failed: {failures[0]!r}")


def _register(registry: "Registry") -> None:
    """Train on the Wisconsin breast-cancer table: 569 tumours, 30 measurements each."""
    from sklearn.datasets import load_breast_cancer
    from xgboost import XGBClassifier

    from service.registry.card import summary
    from service.registry.work import Options

    say("training a model on 569 tumours (scikit-learn's breast-cancer table)")
    data = load_breast_cancer(as_frame=True)
    names = {0: "malignant", 1: "benign"}
    model = XGBClassifier(n_estimators=100, max_depth=6, learning_rate=0.1, n_jobs=1)
    model.fit(data.data, data.target)
    made = registry.register(
        MODEL,
        model,
        data.data,
        data.target.map(names),
        options=Options(classes=tuple(names.values())),
        on_progress=say,
    )
    print_text(summary(made.model.manifest, made.report, made.model.schema))


def _show_in_thread(ready: "Ready", failures: list[Exception], *, once: bool) -> None:
    import threading

    def show() -> None:
        try:
            _show(ready.url)
            if not once:
                say(f"serving on {ready.url} until Ctrl-C")
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            failures.append(error)
            ready.stop()
        if once:
            ready.stop()

    threading.Thread(target=show, name="demo", daemon=True).start()


def _show(url: str) -> None:
    """Ask like any application would, and print the answer and how to get it again."""
    import orjson

    sample = _fetch(f"{url}/models/{MODEL}")["sample_request"]
    body = orjson.dumps({"instances": sample["instances"]})
    answer = _fetch(f"{url}/predict?explain=true", body)
    stored = _fetch(url + answer["explanation"]["links"]["self"])
    assert stored["explanation"] == answer["explanation"]
    print_text(readable(answer))
    print_text(f"\nfetch it again:  curl -s {url}{answer['explanation']['links']['self']}")
    line = f"curl -s '{url}/predict?explain=true' -H 'Content-Type: application/json' -d"
    print_text(f"do it yourself:  {line} '{body.decode()}'")


def _fetch(url: str, body: bytes | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN202
    import urllib.request

    import orjson

    request = urllib.request.Request(  # noqa: S310 - our own server's URL
        url, body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return orjson.loads(response.read())


def readable(answer) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """An answer for a person: the decision, then what pushed it which way."""
    prediction, explanation = answer["predictions"][0], answer["explanation"]
    chances = ", ".join(f"{k} {p:.1%}" for k, p in prediction["probabilities"].items())
    output, base = explanation["outputs"][0][0], explanation["base_values"][0][0]
    lines = [
        "",
        f"prediction  {prediction['label']}  ({chances})",
        f"explained   in {explanation['duration_seconds'] * 1e6:.0f} us, {explanation['method']}",
        f"            {explanation['output_space']}: average {base:+.2f}, this one {output:+.2f}",
    ]
    widest = max(abs(entry["contribution"]) for entry in explanation["top"][0])
    for entry in explanation["top"][0]:
        bar = "█" * max(1, round(BAR * abs(entry["contribution"]) / widest))
        lines.append(
            f"  {entry['contribution']:+8.3f}  {bar:<{BAR}}  {entry['feature']} = {entry['value']}"
        )
    return "\n".join(lines)
