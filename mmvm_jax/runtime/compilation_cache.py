"""JAX's persistent compilation cache, which keeps compiled programs on disk for later processes."""

import os
import tempfile

import jax

from mmvm_jax.errors import first_line
from mmvm_jax.runtime.progress import log

_FOLDER = "compiled"
_DEFAULT_SECONDS, _SECONDS = 1.0, 0.5  # least compilation time of a cached program: JAX's default, and ours


def enable(data_directory: str | os.PathLike) -> None:
    """Enable the compilation cache, in the folder ``compiled`` of the data directory.

    Settings of the user, such as ``JAX_COMPILATION_CACHE_DIR`` or ``jax.config``, are not changed. If the folder cannot
    be written, the cache stays off, with a warning in the log.

    Args:
      data_directory: local directory of prepared data; created if necessary.
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
            "%s cannot be written (%s), so compiled programs are not kept; set JAX_COMPILATION_CACHE_DIR",
            folder,
            first_line(error),
        )
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    if jax.config.values["jax_persistent_cache_min_compile_time_secs"] == _DEFAULT_SECONDS:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
