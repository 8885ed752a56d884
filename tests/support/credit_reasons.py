"""German credit with an XGBoost model and the policy of docs/reasons.md."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tables import instances_of, larger_table

from service.registry import Registry
from service.registry.work import Options

PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"
COLUMNS = 20
N_TRAINING = 700


def documented_policy() -> str:
    """The complete policy of the page."""
    block = re.compile(r"<!-- example: policy -->\n```toml\n(.*?)```", re.DOTALL)
    (example,) = block.findall(PAGE.read_text())
    return str(example)


@dataclass(frozen=True)
class Credit:
    """A registry with `german_credit`, the applicants it was not trained on, and a cohort."""

    registry: Path
    applicants: list[dict[str, Any]]
    approved: pd.DataFrame

    def policy(self, folder: Path, *, with_cohort: bool = False, more: str = "") -> Path:
        """The page's policy in a folder, with the accepted training rows as its cohort if so."""
        text = documented_policy()
        if with_cohort:
            file = folder / "approved.csv"
            self.approved.to_csv(file, index=False)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            line = f'cohort = {{ file = "approved.csv", sha256 = "{digest}" }}\n'
            text = text.replace("most = 4", line + "most = 4")
        path = folder / "policy.toml"
        path.write_text(text + more)
        return path

    def copied_to(self, data_dir: Path) -> Path:
        """A data directory that serves it."""
        shutil.copytree(self.registry, data_dir / "registry")
        return data_dir


def register_credit(folder: Path) -> Credit:
    """Train on the first rows of the table and register."""
    from xgboost import XGBClassifier

    table = larger_table("german_credit")
    X, y = table.drop(columns="risk"), table["risk"]
    fed = X.assign(**{name: X[name].astype("category") for name in X if not _is_number(X[name])})
    model = XGBClassifier(
        n_estimators=40, max_depth=4, learning_rate=0.2, n_jobs=1, enable_categorical=True
    ).fit(fed[:N_TRAINING], (y == "bad").astype(int)[:N_TRAINING])
    options = Options(classes=("good", "bad"), background_rows=60)
    training = X[:N_TRAINING], y[:N_TRAINING]
    Registry(folder).register("german_credit", model, *training, options=options)
    approved = X[:N_TRAINING][y[:N_TRAINING] == "good"].head(200)
    return Credit(folder, instances_of(X[N_TRAINING:]), approved)


def _is_number(series: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(series))
