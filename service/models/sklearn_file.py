"""skops files: which types may be read, and what is checked before a file's model is called."""

from service.models.errors import ModelLoadError
from service.models.kernel_soundness import check_kernels
from service.models.sklearn_step import Estimator
from service.models.tree_soundness import check_trees

METRICS = ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
KERNELS = (
    "CompoundKernel",
    "ConstantKernel",
    "DotProduct",
    "ExpSineSquared",
    "Exponentiation",
    "Matern",
    "Product",
    "RBF",
    "RationalQuadratic",
    "Sum",
    "WhiteKernel",
)
TRUSTED = (
    "collections.OrderedDict",
    "functools.partial",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "scipy.sparse._csr.csr_array",
    "scipy.sparse._csr.csr_matrix",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._mutual_info.mutual_info_classif",
    "sklearn.feature_selection._mutual_info.mutual_info_regression",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.feature_selection._univariate_selection.r_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    *(f"sklearn.gaussian_process.kernels.{kernel}" for kernel in KERNELS),
    *(f"sklearn.metrics._dist_metrics.{metric}Distance64" for metric in METRICS),
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)
"""Types beyond those skops trusts by itself. Reading them runs no code of the file; what
scikit-learn's C code would follow unchecked is checked after reading (trees, support vectors,
neighbours' labels, sparse matrices) or made again (neighbours' search trees). So is what is
partial: only histogram boosting's own call of check_array may be."""

CONVERT = "save the model with skops.io.dump(model, 'model.skops')"


def read_estimator(data: bytes) -> Estimator:
    """The fitted estimator or pipeline of a skops file, safe to call, its parts with one thread.

    ModelLoadError for what is not trusted, not sound or no fitted estimator.
    """
    from skops.io import get_untrusted_types, loads

    if not data.startswith(b"PK"):
        raise ModelLoadError(
            f"not a skops file, and pickle or joblib run code when read: {CONVERT}"
        )
    try:
        strangers = sorted(set(get_untrusted_types(data=data)) - set(TRUSTED))
        model = None if strangers else loads(data, trusted=list(TRUSTED))
    except Exception as error:
        # skops, numpy and the classes themselves raise whatever a broken file leads them to.
        raise ModelLoadError(f"broken skops file: {error!r}") from error
    if strangers:
        raise ModelLoadError(f"the file holds types that are not trusted: {', '.join(strangers)}")
    if not hasattr(model, "predict") or not hasattr(model, "n_features_in_"):
        raise ModelLoadError(f"{type(model).__qualname__} is not a fitted estimator")
    check_trees(model)
    check_kernels(model)
    return model
