"""LightGBM's link, proven on a model whose raw scores are whatever its rows say."""

import numpy as np

from explainers.base import Link
from service.models.lightgbm_text import ModelText
from service.models.links import MarginLink, c_link, proof_margins

TREE = """Tree={index}
num_leaves=2
num_cat=0
split_feature={index}
split_gain=0
threshold=0
decision_type=2
left_child=-1
right_child=-2
leaf_value=0 0
leaf_weight=1 1
leaf_count=1 1
internal_value=0
internal_weight=0
internal_count=2
is_linear=1
leaf_const=0 0
num_features=1 1
leaf_features={index} {index}
leaf_coeff=1 1
shrinkage=1


"""
"""A linear tree: both leaves give column `index`, times 1."""

MODEL = """tree
version=v4
num_class={n_outputs}
num_tree_per_iteration={n_outputs}
label_index=0
max_feature_idx={last}
objective={objective}
feature_names={names}
feature_infos={ranges}
tree_sizes={sizes}

{trees}end of trees

parameters:
end of parameters
"""


def proven_link(text: ModelText, link: Link) -> MarginLink | None:
    """Our link of the objective if it equals the library's bit by bit, near zero and far from it.

    It saves the second pass over the trees. None where the library averages before the link.
    """
    from lightgbm import Booster
    from lightgbm.basic import LightGBMError

    candidate = c_link(link)
    if candidate is None or text.averaged:
        return None
    margins = proof_margins(text.n_outputs)
    try:
        booster = Booster(model_str=_model_of_margins(text))
        raw = booster.predict(margins, num_threads=1, raw_score=True)
        served = booster.predict(margins, num_threads=1)
    except (LightGBMError, ValueError):
        return None
    is_proven = np.array_equal(np.reshape(raw, margins.shape), margins) and np.array_equal(
        np.reshape(served, margins.shape), candidate(margins)
    )
    return candidate if is_proven else None


def _model_of_margins(text: ModelText) -> str:
    """A model of the same objective whose raw score of output k is column k."""
    trees = [TREE.format(index=index) for index in range(text.n_outputs)]
    return MODEL.format(
        n_outputs=text.n_outputs,
        last=text.n_outputs - 1,
        objective=" ".join(text.objective),
        names=" ".join(f"margin{index}" for index in range(text.n_outputs)),
        ranges=" ".join(["[-100:100]"] * text.n_outputs),
        sizes=" ".join(str(len(tree)) for tree in trees),
        trees="".join(trees),
    )
