"""A process that starts the application, sends each model its sample, and prints as JSON what
these requests brought in: modules imported, kernels compiled (or read from the cache).

    python -m first_request DATA_DIR [late]
"""

import json
import sys
from pathlib import Path

from faulty_parts import with_explainer
from live_app import live_app

from explainers.base import Explanation


def come_late(explanation: Explanation) -> Explanation:
    """Passes on an explanation that needed what nothing else has needed before."""
    import wave  # noqa: F401

    from explainers.tree import kernel

    kernel.logistic_float32(explanation.values[0, :, 0])
    return explanation


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
    with live_app(data_dir, customise=with_explainer(come_late) if late else None) as app:
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
