"""Columns that callers of some roles may not see."""

from collections.abc import Collection, Mapping, Sequence

Masks = Mapping[str, frozenset[str]]
"""Role to the columns it may not see."""


def hidden_columns(masks: Masks, roles: Sequence[str], columns: Collection[str]) -> frozenset[str]:
    """Which of a model's columns a caller of these roles may not see: what any of them masks.

    A role that is not known may see nothing: it may be misspelt, here or in the caller's key.
    """
    if any(role not in masks for role in roles):
        return frozenset(columns)
    return frozenset().union(*(masks[role] for role in roles)).intersection(columns)


def hidden_by_file(
    masks: Masks, own: Masks, roles: Sequence[str], columns: Collection[str]
) -> frozenset[str]:
    """`hidden_columns` where nobody compared the file with the model, as it is not served: if a
    mask of the model's own section (own) names what is no column, all are hidden.
    """
    if any(not own[role] <= {*columns} for role in roles if role in own):
        return frozenset(columns)
    return hidden_columns(masks, roles, columns)
