"""Checks what else scikit-learn's C code would follow unchecked: support vectors, neighbours and
sparse matrices.
"""

from typing import Any

import numpy as np

from service.models.errors import ModelLoadError
from service.models.tree_soundness import parts_of

PRECOMPUTED = "precomputed"


def check_kernels(model: object) -> None:
    """Prove that libsvm and the searches for neighbours stay within the arrays they were given.

    Search trees are grown again from their points, to the same nodes, whatever the file says of
    them; and every part predicts with one thread, since the service has its own. ModelLoadError
    otherwise: such a file would crash the process.
    """
    parts = list(parts_of(model))
    try:
        for part in parts:
            _check_part(part)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelLoadError(f"an estimator in the file is not complete: {error!r}") from error


def _check_part(part: Any) -> None:  # noqa: ANN401
    """What was never fitted lacks the attribute asked for: called, it raises."""
    from scipy.sparse import issparse
    from sklearn.neighbors._base import NeighborsBase
    from sklearn.svm._base import BaseLibSVM

    if issparse(part):
        part.check_format(full_check=True)
    elif isinstance(part, BaseLibSVM) and "support_vectors_" in vars(part):
        _check_support_vectors(part)
    elif isinstance(part, NeighborsBase) and "_fit_method" in vars(part):
        _check_neighbours(part)
    if getattr(part, "__dict__", {}).get("n_jobs") is not None:
        part.n_jobs = 1


def _check_support_vectors(part: Any) -> None:  # noqa: ANN401
    from sklearn.base import is_classifier

    if part.kernel == PRECOMPUTED or not isinstance(part.kernel, str):
        raise ModelLoadError(f"{type(part).__qualname__} with a kernel of its own reads no columns")
    vectors, counts = part.support_vectors_, np.asarray(part._n_support)  # noqa: SLF001
    n_classes, n_vectors = len(counts), vectors.shape[0]
    pairs = n_classes * (n_classes - 1) // 2
    weights = part._dual_coef_
    if hasattr(weights, "tocsr"):
        # libsvm takes a sparse matrix's data for the whole matrix.
        stored: tuple[int, ...] = (len(weights.data),)
        expected: tuple[int, ...] = ((n_classes - 1) * n_vectors,)
    else:
        stored, expected = weights.shape, (n_classes - 1, n_vectors)
    optional = {(0,), (pairs,)}
    is_sound = (
        "_impl" not in vars(part)
        and vectors.shape == (n_vectors, part.n_features_in_)
        and np.shape(part.support_) == (n_vectors,)
        and stored == expected
        and np.shape(part._intercept_) == (pairs,)
        and np.shape(part._probA) in optional  # noqa: SLF001
        and np.shape(part._probB) == np.shape(part._probA)  # noqa: SLF001
    )
    if is_sound and is_classifier(part):
        is_sound = (
            len(part.classes_) == n_classes
            and bool(np.all(counts >= 0))
            and int(counts.sum()) == n_vectors
        )
    if not is_sound:
        raise ModelLoadError("the support vectors in the file do not fit each other")


def _check_neighbours(part: Any) -> None:  # noqa: ANN401
    from sklearn.neighbors import BallTree, KDTree

    metric, points = part.effective_metric_, part._fit_X  # noqa: SLF001
    if metric == PRECOMPUTED or not isinstance(metric, str):
        raise ModelLoadError(f"{type(part).__qualname__}: its metric is no named one of columns")
    if points.ndim != 2 or points.shape[1] != part.n_features_in_:
        raise ModelLoadError("the neighbours in the file have other columns than the model")
    wanted = getattr(part, "n_neighbors", None)
    if wanted is not None and not 1 <= wanted <= points.shape[0]:
        raise ModelLoadError("the model asks for more neighbours than the file holds")
    if hasattr(part, "classes_"):
        labels = np.asarray(part._y)  # noqa: SLF001
        is_sound = labels.shape == points.shape[:1] and np.issubdtype(labels.dtype, np.integer)
        if not is_sound or labels.min() < 0 or labels.max() >= len(part.classes_):
            raise ModelLoadError("the neighbours in the file have classes the model does not")
    kinds = {"kd_tree": KDTree, "ball_tree": BallTree}
    method = part._fit_method  # noqa: SLF001
    options = part.effective_metric_params_
    part._tree = (  # noqa: SLF001
        kinds[method](points, part.leaf_size, metric=metric, **options) if method in kinds else None
    )
