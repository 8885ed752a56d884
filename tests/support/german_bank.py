"""German credit, with the policy of docs/recourse.md."""

import re
from pathlib import Path

import numpy as np
from tables import larger_table

from service.registry import Registry
from service.registry.work import Options

PAGE = Path(__file__).parents[2] / "docs" / "recourse.md"


def register_bank(folder: Path) -> Registry:
    """A model trained on four fifths, in `folder/registry`; its policy, in `folder/policy.toml`."""
    from xgboost import XGBClassifier

    table = larger_table("german_credit")
    table = table[np.arange(len(table)) % 5 != 0]
    risk = table.pop("risk")
    texts = table.select_dtypes(exclude="number").columns
    table = table.astype(dict.fromkeys(texts, "category"))
    model = XGBClassifier(
        n_estimators=100, max_depth=4, learning_rate=0.1, n_jobs=1, enable_categorical=True
    )
    registry = Registry(folder / "registry")
    registry.register(
        *("german_credit", model.fit(table, risk == "bad"), table, risk),
        options=Options(classes=("good", "bad")),
    )
    (policy,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "policy.toml").write_text(policy)
    return registry
