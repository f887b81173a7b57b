"""Versions of jaxlib that are known to compute wrong values."""

import warnings

import jaxlib

from mmvm_jax.errors import UserError

# {version: what it gets wrong, and the report of it}. Only what was measured or reported to be wrong on a supported
# device stands here; the self-check (``mmvm_jax.runtime.self_check``) is for what nobody knows yet.
KNOWN_WRONG = {
    "0.10.2": "sums of products on CPUs, https://github.com/jax-ml/jax/issues/39103",
}
REMEDY = "pip install 'jax!={0}' 'jaxlib!={0}'"


def check_version() -> None:
    """Raises UserError if the installed jaxlib is known to compute wrong values."""
    if jaxlib.__version__ in KNOWN_WRONG:
        raise UserError(_message())


def warn_of_version() -> None:
    """Warns whoever imports the calling module if the installed jaxlib is known to compute wrong values."""
    if jaxlib.__version__ in KNOWN_WRONG:
        warnings.warn(_message(), RuntimeWarning, stacklevel=3)


def _message() -> str:
    version = jaxlib.__version__
    return (
        f"jaxlib {version} computes wrong values ({KNOWN_WRONG[version]}); "
        f"install another version: {REMEDY.format(version)}"
    )
