"""Where compiled kernels are cached, and compiling them ahead of the first request."""

import os
import shutil
import sys
from pathlib import Path

from service.logs import log

CACHE = "NUMBA_CACHE_DIR"


def choose_kernel_cache(data_dir: Path) -> None:
    """Name the kernel cache before numba is imported: the environment's own folder if it can be
    written, else one in the data directory. Cache files are pickles: nobody else may write there.
    """
    if os.environ.get(CACHE):
        return
    installed = Path(sys.prefix) / "share" / "explaind-kernels"
    for folder in (installed, data_dir / "kernels"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            os.environ[CACHE] = str(folder)
            return


def compile_kernels() -> None:
    """Load or compile every kernel; a damaged cache is thrown away and made again."""
    from explainers.warm import main as warm_up

    try:
        warm_up()
    except Exception as error:  # numba raises whatever its damaged files hold
        folder = os.environ.get(CACHE)
        if folder is None:
            raise
        log.error("kernel_cache_damaged", folder=folder, error=repr(error))
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        warm_up()


if __name__ == "__main__":
    choose_kernel_cache(Path("explaind-data"))
    compile_kernels()
