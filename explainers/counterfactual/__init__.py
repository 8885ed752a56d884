"""What would have to change for a model to decide otherwise: a constrained search over columns."""

from explainers.counterfactual.constraints import ColumnRule, Direction
from explainers.counterfactual.diagnosis import Binding, BindingKind
from explainers.counterfactual.search import Counterfactual, Found, Problem, search

__all__ = [
    "Binding",
    "BindingKind",
    "ColumnRule",
    "Counterfactual",
    "Direction",
    "Found",
    "Problem",
    "search",
]
