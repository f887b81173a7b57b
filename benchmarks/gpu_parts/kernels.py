"""The kernels, compiled, against their definitions in NumPy's float64."""

import contextlib
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln, logsumexp

from mmvm_jax import distributions
from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.runtime import environment
from mmvm_jax.types import DiagonalGaussian

SIZES = ((2, 16_384, 64), (5, 2_048, 512), (10, 2_048, 128))  # modalities, examples, latent dimensions
TOY_SIZES = ((2, 64, 8), (5, 16, 32))
ALLOWED = 1e-5  # of the reference's norm
ALPHA = 0.1  # weight of N(0, I) in the prior of MMVM
_LOG_2PI = np.log(2.0 * np.pi)


def run(table, options) -> None:
    """Adds the machine, a row for every size, with and without a mask, and one for the likelihoods."""
    options.wait()
    table.add("machine", environment.describe_devices(), **_versions())
    toy = options.toy
    generator = np.random.default_rng(0)
    for size in TOY_SIZES if toy else SIZES:
        for masked in (False, True):
            errors = _gaussian_errors(generator, size, masked)
            what = f"{'x'.join(map(str, size))} {'masked' if masked else 'complete'}"
            table.add("kernels", what, passed=_are_small(errors), **errors)
    errors = _likelihood_errors(generator, 64 if toy else 1_024)
    table.add("kernels", "likelihoods", passed=_are_small(errors), **errors)


def _versions() -> dict[str, str]:
    found = {}
    for name in ("jax", "flax", "numpy", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _are_small(errors: dict[str, float]) -> bool:
    return all(error < ALLOWED for error in errors.values())  # which no NaN is


def _error(output, reference) -> float:
    """Distance to the reference, divided by its norm."""
    return float(np.linalg.norm(np.asarray(output, np.float64) - reference) / np.linalg.norm(reference))


def _gaussian_errors(generator, size, masked: bool) -> dict[str, float]:
    mean, log_variance = generator.normal(size=(2, *size)).astype(np.float32)
    present = generator.random(size[:2]) < (0.6 if masked else 1.0)
    alpha, z = ALPHA if masked else 0.0, generator.normal(size=size[1:]).astype(np.float32)
    unread = np.where(present[..., None], mean, np.nan)  # what is absent must not matter
    weights = np.where(present, 1.0 / np.maximum(present.sum(0), 1), 0.0)
    with np.errstate(divide="ignore"):
        log_weights = np.where(present.any(0), np.log(weights), -np.log(len(mean)))
    given = DiagonalGaussian(unread, log_variance), present
    kl = jax.jit(distributions.kl_to_mixture, static_argnames="estimator")
    divergences = _divergences_to_mixture(*_float64(mean, log_variance), present, alpha)
    errors = {
        name: _error(kl(given[0], present=present, prior_weight=alpha, estimator=name), divergences[name])
        for name in divergences
    }
    product = jax.jit(product_of_experts)(*given)
    errors["product"] = max(map(_error, product, _product(*_float64(mean, log_variance), present)))
    observed = DiagonalGaussian(mean, log_variance)
    density = jax.jit(distributions.mixture_log_density)(observed, z, log_weights.astype(np.float32))
    return errors | {"mixture": _error(density, _mixture_log_density(*_float64(mean, log_variance, z), log_weights))}


def _float64(*arrays):
    return [array.astype(np.float64) for array in arrays]


def _divergences_to_mixture(mean, log_variance, present, alpha) -> dict[str, np.ndarray]:
    """Both bounds on KL(q_m || sum_j v_j q_j + alpha N(0, I)), by the usual form of a divergence, pair by pair."""
    weights = present * (1.0 - alpha) / np.maximum(present.sum(0), 1)
    weights = np.concatenate([weights, np.where(present.any(0), alpha, 1.0)[None]])[None]
    components = list(zip(mean, log_variance)) + [(np.zeros_like(mean[0]), np.zeros_like(mean[0]))]
    kls = np.array([[_kl(*posterior, *other) for other in components] for posterior in zip(mean, log_variance)])
    with np.errstate(divide="ignore"):
        tightest = -logsumexp(np.log(weights) - kls, axis=1)
    pairwise = np.sum(weights * kls, axis=1)
    return {"pairwise": np.where(present, pairwise, 0.0), "variational": np.where(present, tightest, 0.0)}


def _kl(mean, log_variance, other_mean, other_log_variance):
    variance, other_variance = np.exp(log_variance), np.exp(other_log_variance)
    terms = other_log_variance - log_variance - 1.0 + (variance + (mean - other_mean) ** 2) / other_variance
    return 0.5 * terms.sum(-1)


def _product(mean, log_variance, present):
    """Mean and log-variance of the product of the present; N(0, I) where there is none."""
    precision = np.where(present[..., None], np.exp(-log_variance), 0.0)
    total = np.where(present.any(0)[..., None], precision.sum(0), 1.0)
    return (precision * mean).sum(0) / total, -np.log(total)


def _mixture_log_density(mean, log_variance, z, log_weights):
    squared = (z - mean) ** 2 / np.exp(log_variance)
    return logsumexp(log_weights - 0.5 * (_LOG_2PI + log_variance + squared).sum(-1), axis=0)


def _likelihood_errors(generator, size: int) -> dict[str, float]:
    x, output = generator.normal(size=(2, size, 28, 28, 3)).astype(np.float32)
    counts, bits = generator.poisson(3.0, x.shape).astype(np.float32), (x > 0).astype(np.float32)
    tokens, mask = generator.integers(0, 1_000, (size, 32)), generator.random((size, 32)) < 0.7
    logits = generator.normal(size=(size, 32, 1_000)).astype(np.float32)
    wide, scale = output.astype(np.float64), 0.75
    log_shares = logits.astype(np.float64) - logsumexp(logits.astype(np.float64), axis=-1, keepdims=True)
    chosen = np.take_along_axis(log_shares, tokens[..., None], axis=-1)[..., 0]
    pairs = {
        "laplace": ((x, output, scale, 3), -np.abs(x - wide) / scale - np.log(2 * scale)),
        "normal": ((x, output, scale, 3), -0.5 * (((x - wide) / scale) ** 2 + _LOG_2PI) - np.log(scale)),
        "bernoulli": ((bits, output, 3), bits * wide - np.logaddexp(0.0, wide)),
        "poisson": ((counts, output, 3), counts * wide - np.exp(wide) - gammaln(counts + 1.0)),
        "categorical": ((tokens, logits, mask), np.where(mask, chosen, 0.0)),
    }
    return {name: _likelihood_error(name, *pair) for name, pair in pairs.items()}


def _likelihood_error(name: str, arguments, terms) -> float:
    kernel = getattr(distributions, f"{name}_log_likelihood")
    arrays = [jnp.asarray(argument) for argument in arguments if isinstance(argument, np.ndarray)]
    rest = arguments[len(arrays) :]
    return _error(jax.jit(lambda *arrays: kernel(*arrays, *rest))(*arrays), terms.reshape(len(terms), -1).sum(1))
