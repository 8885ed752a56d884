"""A process that starts the application, sends each model its sample, and prints as JSON what
these requests brought in: modules imported, kernels compiled (or read from the cache).

    python -m first_request DATA_DIR [late]
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_app import live_app

from explainers.base import Explainer, Explanation, FloatArray
from service.runtime import Runtime


@dataclass(frozen=True)
class LateExplainer:
    """The real explainer, which its first call finds unprepared."""

    real: Explainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def explain(self, X: FloatArray) -> Explanation:
        import wave  # noqa: F401 - a module nobody needs before

        from explainers.tree import kernel

        kernel.logistic_float32(X[0])
        return self.real.explain(X)


def come_late(runtime: Runtime) -> None:
    served = next(iter(runtime.models.all.values()))
    object.__setattr__(served.model, "explainer", LateExplainer(served.model.explainer))


def state() -> tuple[set[str], set[str]]:
    """Modules, and kernels with their signatures."""
    from explainers.tree import kernel

    compiled = {
        f"{name} {signature}"
        for name, value in vars(kernel).items()
        for signature in getattr(value, "signatures", ())
    }
    return set(sys.modules), compiled


def main() -> None:
    data_dir, late = Path(sys.argv[1]), "late" in sys.argv[2:]
    with live_app(data_dir, customise=come_late if late else None) as app:
        client = app.client()
        assert client.get("/readyz").status == 200
        modules, compiled = state()
        for name, served in app.runtime.models.all.items():
            reply = client.predict([dict(served.model.sample)], path=f"/models/{name}/predict")
            assert reply.json()["explanation"]["status"] == "complete"
        modules_after, compiled_after = state()
    brought = {
        "modules": sorted(modules_after - modules),
        "kernels": sorted(compiled_after - compiled),
    }
    print(json.dumps(brought))


if __name__ == "__main__":
    main()
