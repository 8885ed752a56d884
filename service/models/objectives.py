"""What the objectives of boosting libraries make of a model's margins."""

from collections.abc import Mapping
from typing import NamedTuple

from explainers.base import Link, OutputSpace, UnsupportedModelError
from service.models.base import Task


class Objective(NamedTuple):
    """Task of the models trained on it, unit of their outputs, and link from these to scores."""

    task: Task
    output_space: OutputSpace
    link: Link

    def n_classes(self, n_outputs: int) -> int:
        """K of a classifier with so many outputs, 1 for a regression."""
        return {"binary": 2, "multiclass": n_outputs, "regression": 1}[self.task]


BINARY = Objective("binary", "log_odds", "logit")
FRACTION = Objective("regression", "log_odds", "logit")
MULTICLASS = Objective("multiclass", "margin", "softmax")
LOG = Objective("regression", "log", "log")
VALUE = Objective("regression", "raw", "identity")


def known_objective(
    name: str, known: Mapping[str, Objective], *, advice: Mapping[str, str], word: str = "objective"
) -> Objective:
    """The objective of this name; UnsupportedModelError, with what to do, for one not known."""
    if name not in known:
        way_out = advice.get(name, f"known are {', '.join(known)}")
        raise UnsupportedModelError(f"{word} {name!r} cannot be served: {way_out}")
    return known[name]
