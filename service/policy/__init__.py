"""Policy as data: which predictions are explained unasked, which never, and what is decided."""

from service.policy.binding import bind, placed
from service.policy.deciding import BoundRule, KeyOf, ModelPolicy, PolicyDecision, forbidden_by
from service.policy.document import DEFAULT_REVIEW, PolicyFile
from service.policy.following import PolicyFollower
from service.policy.reasons import CohortTable, Entry, Reasons, ReasonsRule
from service.policy.recourse import Goal, Recourse
from service.policy.retention import Retention
from service.policy.roles import hidden_by_file, hidden_columns
from service.policy.terms import PolicyError, Threshold, Vocabulary

__all__ = [
    "DEFAULT_REVIEW",
    "BoundRule",
    "CohortTable",
    "Entry",
    "Goal",
    "KeyOf",
    "ModelPolicy",
    "PolicyDecision",
    "PolicyError",
    "PolicyFile",
    "PolicyFollower",
    "Reasons",
    "ReasonsRule",
    "Recourse",
    "Retention",
    "Threshold",
    "Vocabulary",
    "bind",
    "forbidden_by",
    "hidden_by_file",
    "hidden_columns",
    "placed",
]
