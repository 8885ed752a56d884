"""Which software computes: recorded at registration, and again with every decision."""

from functools import cache
from importlib.metadata import distributions, version

LIBRARIES = (
    "numpy",
    "numba",
    "pandas",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "lightgbm",
    "catboost",
    "onnxruntime",
    "skops",
    "torch",
)


@cache
def installed_libraries() -> dict[str, str]:
    """Name to version of the libraries of this process; a version may have been registered with
    others.
    """
    return {d.name: d.version for library in LIBRARIES for d in distributions(name=library)}


@cache
def service_version() -> str:
    """The release that is running."""
    return version("explaind")
