"""JAX's persistent compilation cache: programs that one process compiled, a later one reads from the disk."""

import os
import tempfile

import jax

from mmvm_jax.errors import first_line
from mmvm_jax.runtime.progress import log

_FOLDER = "compiled"
_USUAL_SECONDS, _SECONDS = 1.0, 0.5  # of compilation from which on a program is kept: JAX's default, and ours


def enable(data_directory: str | os.PathLike) -> None:
    """Enable the compilation cache, in the folder ``compiled`` of the data directory.

    What the user has set stays as it is: ``JAX_COMPILATION_CACHE_DIR`` and its like in the environment, or
    ``jax.config``. Where the folder cannot be written, programs are not kept, and the log says so.

    Args:
      data_directory: where prepared data live on this machine; is made if need be.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = os.path.join(data_directory, _FOLDER)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        log.warning(
            "%s cannot be written (%s), so compiled programs are not kept; JAX_COMPILATION_CACHE_DIR names another",
            folder,
            first_line(error),
        )
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    if jax.config.values["jax_persistent_cache_min_compile_time_secs"] == _USUAL_SECONDS:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
