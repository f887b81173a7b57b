"""Self-check at the start of a run: compares a few compiled kernels, at a realistic size, with NumPy in float64.

Faulty compilers and devices compute wrong values without an error, and often only at large sizes.
"""

import functools

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.distributions import kl_to_mixture, mixture_log_density
from mmvm_jax.errors import UserError
from mmvm_jax.runtime import devices, processes
from mmvm_jax.types import Array, DiagonalGaussian
from mmvm_jax.versions import check_version

_MODALITIES, _EXAMPLES, _DIMENSIONS = 5, 10_000, 4  # jaxlib 0.10.2 is wrong from 32,769 posteriors on
# Relative to the largest value. The errors of wrong values are as large as the values. Rounding errors are far smaller,
# 1e-6 on CPUs; these kernels have no matrix product, which accelerators round to 1e-3.
_TOLERANCE = 1e-4


@functools.cache
def check() -> dict[str, float]:
    """Check, once per process, that every device of the process computes correct values.

    All processes of a run must call it.

    Returns:
      {kernel: largest error of all devices, relative to the largest value}.

    Raises:
      UserError: the version of jaxlib is known to compute wrong values, or a device computed wrong values.
    """
    check_version()
    inputs = _make_inputs()
    computed = devices.on_each_device(_kernels, *inputs)
    errors = {name: _largest_error(computed[name], value) for name, value in _expected(*inputs).items()}
    wrong = {name: error for name, error in errors.items() if not error <= _TOLERANCE}  # NaN too
    if processes.in_any_process(bool(wrong)):
        raise UserError(_message(wrong), exit_code=1)
    return errors


def _make_inputs() -> tuple[DiagonalGaussian, np.ndarray]:
    """Return posteriors [M, B, D] and a mask [M, B] with at least one modality per example."""
    generator = np.random.default_rng(0)
    mean, log_variance = generator.normal(size=(2, _MODALITIES, _EXAMPLES, _DIMENSIONS)).astype(np.float32)
    present = generator.random((_MODALITIES, _EXAMPLES)) < 0.7
    present[0] |= ~present.any(axis=0)
    return DiagonalGaussian(mean, log_variance), present


def _kernels(posteriors: DiagonalGaussian, present: Array) -> dict[str, Array]:
    log_weights = jnp.where(present, 0.0, -jnp.inf)
    return {
        "kl_to_mixture": kl_to_mixture(posteriors, present=present),
        "product_of_experts": product_of_experts(posteriors, present, prior_expert=True).mean,
        "mixture_log_density": mixture_log_density(posteriors, posteriors.mean[0], log_weights),
    }


def _expected(posteriors: DiagonalGaussian, present: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the values of ``_kernels`` in float64, from their definitions."""
    mean, log_variance = (leaf.astype(np.float64) for leaf in posteriors)
    precision = np.exp(-log_variance)
    log_ratio = log_variance[:, None] - log_variance[None]
    squared = np.square(mean[:, None] - mean[None]) * precision[None]
    divergences = 0.5 * np.sum(np.exp(log_ratio) - 1.0 - log_ratio + squared, axis=-1)  # [M, M, B]
    to_mixture = np.sum(present * divergences, axis=1) / np.sum(present, axis=0)
    shares = present[..., None] * precision
    squared = np.square(mean[0] - mean) * precision
    log_densities = -0.5 * np.sum(np.log(2.0 * np.pi) + log_variance + squared, axis=-1)
    return {
        "kl_to_mixture": present * to_mixture,
        "product_of_experts": np.sum(shares * mean, axis=0) / (1.0 + np.sum(shares, axis=0)),
        "mixture_log_density": np.logaddexp.reduce(np.where(present, log_densities, -np.inf), axis=0),
    }


def _largest_error(computed: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error of all devices, [devices, ...] against [...], relative to the largest value."""
    return float(np.max(np.abs(computed - expected)) / np.max(np.abs(expected)))


def _message(wrong: dict[str, float]) -> str:
    device = jax.local_devices()[0].device_kind
    found = ", ".join(f"{name} by {error:.2g}" for name, error in wrong.items()) or "in another process"
    return (
        f"self-check: jaxlib {jaxlib.__version__} computes wrong values on '{device}' ({found} of the largest value; "
        f"allowed: {_TOLERANCE:g}); install another version of jax and jaxlib, or use another device"
    )
