"""The last step of a scikit-learn model: which kind it is, and boosters of other libraries."""

from dataclasses import dataclass

import numpy as np

from explainers.base import Derivation, FloatArray
from explainers.preprocess import dense
from service.models.base import NativeModel, Served, TreeForm
from service.models.errors import ModelLoadError
from service.models.sklearn_histogram import histogram_step
from service.models.sklearn_linear import linear_step
from service.models.sklearn_opaque import opaque_step
from service.models.sklearn_step import Estimator, FinalStep, Matrix, Traits
from service.models.sklearn_trees import averaged_step, boosted_step

THRESHOLDS = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV"})
CALIBRATE = (
    "wrap it, as the last step of its pipeline: CalibratedClassifierCV(FrozenEstimator(step))"
    ".fit(X, y), with rows it was not trained on"
)


@dataclass(frozen=True, slots=True, eq=False)
class Booster:
    """An XGBoost or LightGBM model that reads derived columns, behind its own adapter."""

    traits: Traits
    model: NativeModel

    def serve(self, matrix: Matrix) -> Served:
        """What the booster returns for the derived rows."""
        return self.model.predict(dense(matrix, absent=self.traits.absent))

    def evaluate(self, matrix: Matrix) -> FloatArray:
        """What `serve` gives: it is one call."""
        return self.serve(matrix).outputs

    def for_derived(self, matrix: Matrix) -> "Booster":
        """Itself: boosters are served dense rows alone."""
        del matrix
        return self

    def form(self, derivation: Derivation) -> TreeForm:
        """The booster's trees over the derived columns."""
        form = self.model.form()
        assert isinstance(form, TreeForm)
        return TreeForm(form.ensemble, derivation)


def final_step(estimator: Estimator) -> FinalStep:
    """Choose how the estimator is served and explained.

    ModelLoadError when it serves neither class probabilities nor one number per row.
    """
    from sklearn.base import is_classifier, is_regressor

    name = type(estimator).__qualname__
    if not is_classifier(estimator) and not is_regressor(estimator):
        raise ModelLoadError(f"{name} is neither a classifier nor a regressor")
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        # Answers hold probabilities; those made of decision values alone would be invented.
        raise ModelLoadError(f"{name} has no predict_proba; {CALIBRATE}")
    if name in THRESHOLDS:
        raise ModelLoadError(
            f"{name} has a threshold that its probabilities do not show; register its estimator_"
        )
    if is_classifier(estimator) and len(estimator.classes_) < 2:
        raise ModelLoadError(f"{name} knows a single class")
    if _target_count(estimator) > 1:
        raise ModelLoadError(f"{name}: several targets; register one model per target")
    makers = (_booster_step, averaged_step, boosted_step, histogram_step, linear_step)
    found = (make(estimator) for make in makers)
    return next((step for step in found if step is not None), None) or opaque_step(
        estimator, f"{name} has no exact explainer"
    )


def _target_count(estimator: Estimator) -> int:
    if isinstance(getattr(estimator, "classes_", None), list):
        return len(estimator.classes_)
    if hasattr(estimator, "classes_"):
        # A multilayer perceptron counts its classes as outputs.
        return 1
    coefficients = np.shape(getattr(estimator, "coef_", ()))
    if len(coefficients) == 2:
        return int(coefficients[0])
    return int(getattr(estimator, "n_outputs_", 1))


def _booster_step(estimator: Estimator) -> FinalStep | None:
    family = type(estimator).__module__.partition(".")[0]
    if family == "xgboost":
        from service.models.xgboost import dump_xgboost, load_xgboost

        # XGBoost reads what a sparse matrix does not store as missing, LightGBM as zero.
        data, _ = dump_xgboost(estimator)
        return _booster(load_xgboost(data, format="ubj", behind_steps=True), absent=np.nan)
    if family == "lightgbm":
        from service.models.lightgbm import dump_lightgbm, load_lightgbm

        data, _ = dump_lightgbm(estimator)
        return _booster(load_lightgbm(data, behind_steps=True), absent=0.0)
    return None


def _booster(model: NativeModel, *, absent: float) -> Booster:
    traits = Traits(
        model.output_space, model.link, model.library, model.is_float32, model.trees_used, absent
    )
    return Booster(traits, model)
