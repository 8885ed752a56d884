"""Where compiled kernels are cached, and compiling them ahead of the first request."""

import os
import shutil
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from service.logs import log

CACHE = "NUMBA_CACHE_DIR"


def choose_kernel_cache(data_dir: Path) -> None:
    """Name the kernel cache before numba is imported: the one that is given, or the environment's
    own folder; where those cannot be written, one in the data directory, which begins with what the
    given one holds. Cache files are pickles: nobody else may write there.
    """
    given = os.environ.get(CACHE)
    if given:
        if not os.access(given, os.W_OK) and Path(given).is_dir():
            os.environ[CACHE] = str(_copy_of(Path(given), data_dir / "kernels"))
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


def _copy_of(warm: Path, parent: Path) -> Path:
    """A copy of a cache that can only be read, such as an image's: numba uses none that it could
    not write. Made once for each content, whole or not at all; the original where that fails.
    """
    files = sorted(path for path in warm.rglob("*") if path.is_file())
    names = [f"{path.relative_to(warm)} {path.stat().st_size}" for path in files]
    content = sha256("\n".join([str(warm), version("explaind"), *names]).encode()).hexdigest()[:16]
    copy, draft = parent / content, parent / f".{content}.{os.getpid()}"
    if copy.is_dir():
        return copy
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(draft, ignore_errors=True)  # of a killed process: in a container IDs recur
        shutil.copytree(warm, draft, copy_function=shutil.copyfile)
        draft.chmod(0o700)
        draft.rename(copy)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not copy.is_dir():  # made by another process meanwhile
            log.warning("kernels_not_copied", reason=error.strerror)
            return warm
    return copy


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
