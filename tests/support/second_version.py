"""Another version of `breast_cancer`, which predicts otherwise."""

from tables import breast_cancer

from service.registry import Registry
from service.registry.work import Options


def register_second_version(registry: Registry) -> None:
    from xgboost import XGBClassifier

    X, y = breast_cancer()
    model = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1).fit(X, y)
    names = {0: "malignant", 1: "benign"}
    options = Options(classes=tuple(names.values()))
    registry.register("breast_cancer", model, X, y.map(names), options=options)
