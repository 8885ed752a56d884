"""Which software computes: recorded at registration, and again with every decision."""

import json
import os
from functools import cache
from importlib.metadata import distribution, distributions, version

REVISION = "EXPLAIND_GIT_REVISION"
"""Variable an image is built with (Dockerfile): no setting, because nobody should choose it."""

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


@cache
def git_revision() -> str | None:
    """The commit the release was made from: from the image, or from where pip got it."""
    if os.environ.get(REVISION):
        return os.environ[REVISION]
    origin = json.loads(distribution("explaind").read_text("direct_url.json") or "{}")
    revision: str | None = origin.get("vcs_info", {}).get("commit_id")
    return revision


def software() -> dict[str, object]:
    """What computes, as provenance has it."""
    return {"library_versions": installed_libraries(), "service_version": service_version()}
