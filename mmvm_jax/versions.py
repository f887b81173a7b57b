"""Versions of jaxlib that are known to compute wrong values."""

import warnings

import jaxlib

from mmvm_jax.errors import UserError

# {version: the operations that it computes wrongly, and the bug report}. Only faults that were measured or reported on
# a supported device are listed; the self-check (``mmvm_jax.runtime.self_check``) is there to find unknown ones.
KNOWN_WRONG = {
    "0.10.2": "sums of products on CPUs, https://github.com/jax-ml/jax/issues/39103",
}


def check_version() -> None:
    """Raise UserError if the installed jaxlib is known to compute wrong values."""
    if jaxlib.__version__ in KNOWN_WRONG:
        raise UserError(_message())


def warn_of_version() -> None:
    """Warn the importer of the calling module if the installed jaxlib is known to compute wrong values."""
    if jaxlib.__version__ in KNOWN_WRONG:
        warnings.warn(_message(), RuntimeWarning, stacklevel=3)


def _message() -> str:
    version = jaxlib.__version__
    return (
        f"jaxlib {version} computes wrong values ({KNOWN_WRONG[version]}); "
        f"install another version: pip install 'jax!={version}' 'jaxlib!={version}'"
    )
