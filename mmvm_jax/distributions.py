"""Log-densities, divergences and mixtures of diagonal Gaussians, and likelihoods of data.

All functions are pure, work under ``jit``, ``vmap`` and ``grad``, and accept float32 and float64. Every value is in
nats and summed over the latent or event axes, which come last; the leading axes are arbitrary. The values of absent
entries of a masked argument, even NaN, affect neither results nor gradients.

Source of MMVM: Sutter et al. 2024, arXiv 2403.05300.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

from mmvm_jax.errors import check_shape
from mmvm_jax.types import Array, DiagonalGaussian
from mmvm_jax.versions import warn_of_version

ESTIMATORS = ("pairwise", "variational", "monte_carlo")
BOUNDS = ("loose", "tight")
_LOG_2PI = math.log(2.0 * math.pi)
warn_of_version()


def standard_normal_like(gaussian: DiagonalGaussian) -> DiagonalGaussian:
    """Return N(0, I) with the shape of ``gaussian``."""
    return DiagonalGaussian(jnp.zeros_like(gaussian.mean), jnp.zeros_like(gaussian.log_variance))


def observed(
    posteriors: DiagonalGaussian, present: Array | None, log_weights: Array | None = None
) -> tuple[DiagonalGaussian, Array]:
    """Return the posteriors with absent entries replaced by N(0, I), and the mask, all True if None.

    Args:
      posteriors: [M, ..., D].
      present: [M, ...] bool; None if all are present.
      log_weights: [M] or [M, ...], only checked.

    Raises:
      ValueError: shapes do not match. Some would broadcast and give a wrong value without an error.
    """
    shape = posteriors.mean.shape
    if present is None:
        present = jnp.ones(shape[:-1], bool)
    check_shape("log_variance", posteriors.log_variance, shape)
    check_shape("present", present, shape[:-1])
    if log_weights is not None:
        check_shape("log_weights", log_weights, shape[:1], shape[:-1])
    return where_present(present, posteriors), present


def where_present(present: Array, gaussian: DiagonalGaussian) -> DiagonalGaussian:
    """Replace absent entries by N(0, I), so that their values affect neither results nor gradients.

    Args:
      present: [...] bool.
      gaussian: [..., D].
    """
    return DiagonalGaussian(*(jnp.where(present[..., None], leaf, 0.0) for leaf in gaussian))


def gaussian_log_density(gaussian: DiagonalGaussian, z: Array) -> Array:
    """Return log N(z; gaussian): [..., D] -> [...] nats."""
    squared = jnp.square(z - gaussian.mean) * jnp.exp(-gaussian.log_variance)
    return -0.5 * jnp.sum(_LOG_2PI + gaussian.log_variance + squared, axis=-1)


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian | None = None) -> Array:
    """Return KL(q || p), with p = N(0, I) if None: [..., D] -> [...] nats.

    Uses ``expm1``: near q = p the terms of the usual form cancel, and float32 loses all digits.
    """
    if p is None:
        p = standard_normal_like(q)
    log_ratio = q.log_variance - p.log_variance
    squared = jnp.square(q.mean - p.mean) * jnp.exp(-p.log_variance)
    return 0.5 * jnp.sum(jnp.expm1(log_ratio) - log_ratio + squared, axis=-1)


def wasserstein2_squared(q: DiagonalGaussian, p: DiagonalGaussian) -> Array:
    """Return the squared 2-Wasserstein distance: [..., D] -> [...], in squared latent units."""
    scale_q, scale_p = jnp.exp(0.5 * q.log_variance), jnp.exp(0.5 * p.log_variance)
    return jnp.sum(jnp.square(q.mean - p.mean) + jnp.square(scale_q - scale_p), axis=-1)


def sample(key: Array, gaussian: DiagonalGaussian, num_samples: int | None = None) -> Array:
    """Draw reparametrised samples from a Gaussian.

    Args:
      key: one key, or one key per Gaussian, [...]. With one key per Gaussian, a draw does not depend on its neighbours.
      gaussian: [..., D].
      num_samples: S, or None for one draw without a sample axis.

    Returns:
      [..., D], or [S, ..., D] if ``num_samples`` is given.
    """
    mean, log_variance = gaussian
    count = 1 if num_samples is None else num_samples
    if key.ndim:
        draw = lambda one: jax.random.normal(one, (count, mean.shape[-1]), mean.dtype)
        flat = jax.vmap(draw)(key.reshape(-1)).reshape(*key.shape, count, mean.shape[-1])
        noise = jnp.moveaxis(flat, -2, 0)
    else:
        noise = jax.random.normal(key, (count, *mean.shape), mean.dtype)
    z = mean[None] + jnp.exp(0.5 * log_variance)[None] * noise
    return z[0] if num_samples is None else z


def mixture_log_density(components: DiagonalGaussian, z: Array, log_weights: Array) -> Array:
    """Return log sum_k exp(log_weights_k) N(z; components_k).

    Args:
      components: [K, ..., D].
      z: [..., D].
      log_weights: [K] or [K, ...], normalised. -inf excludes a component, whatever its parameters.

    Returns:
      [...] nats.
    """
    log_weights = _expand(log_weights, components.mean.ndim - 1)
    active = jnp.broadcast_to(log_weights > -jnp.inf, components.mean.shape[:-1])
    log_densities = gaussian_log_density(where_present(active, components), z[None])
    return masked_logsumexp(log_weights + log_densities, active, axis=0)


def masked_logsumexp(values: Array, mask: Array, axis) -> Array:
    """Return ``logsumexp`` over the entries where ``mask`` is True. The gradients of the others are exactly 0."""
    kept = jnp.where(mask, values, -jnp.inf)
    any_kept = jnp.any(mask, axis=axis, keepdims=True)
    result = logsumexp(jnp.where(any_kept, kept, 0.0), axis=axis)
    return jnp.where(jnp.any(mask, axis=axis), result, -jnp.inf)


def mixture_weights(
    present: Array, log_weights: Array | None = None, prior_weight: Array | float = 0.0
) -> tuple[Array, Array]:
    """Return the weights of MMVM's data-dependent prior: of the present posteriors and of N(0, I).

    Args:
      present: [M, ...] bool.
      log_weights: [M] or [M, ...], not necessarily normalised; None for uniform ones.
      prior_weight: alpha, the weight of N(0, I), in [0, 1].

    Returns:
      (weights [M, ...], prior [...]), which add up to 1. The weights are 0 where absent, and prior is 1 where nothing
      is present.
    """
    if log_weights is None:
        log_weights = jnp.zeros(present.shape, jnp.result_type(float))
    logits = jnp.where(present, _expand(log_weights, present.ndim), -jnp.inf)
    something = jnp.any(present, axis=0)
    shares = jax.nn.softmax(jnp.where(something[None], logits, 0.0), axis=0)
    weights = jnp.where(present, shares * (1.0 - prior_weight), 0.0)
    return weights, jnp.where(something, prior_weight, 1.0).astype(weights.dtype)


def kl_to_mixture(
    posteriors: DiagonalGaussian,
    log_weights: Array | None = None,
    present: Array | None = None,
    prior_weight: Array | float = 0.0,
    estimator: str = "pairwise",
    temperature: Array | float = 1.0,
    key: Array | None = None,
    num_samples: int = 1,
    prior_gradient: bool = True,
) -> Array:
    """Return KL(q_m || h) of every posterior to the mixture h of all posteriors and N(0, I) (MMVM, equation 4).

    h(z) = sum_j v_j q_j(z) + alpha N(z; 0, I), with v renormalised over the present posteriors and scaled by
    1 - alpha. The divergence has no closed form. Any phi on the simplex gives the upper bound
    sum_j phi_j (KL_mj + log phi_j - log v_j).

    Args:
      posteriors: [M, ..., D].
      log_weights: [M] or [M, ...], of the posteriors; None for uniform ones.
      present: [M, ...] bool; None if all are present.
      prior_weight: alpha, in [0, 1].
      estimator: "pairwise" (phi = v, as in the authors' code), "variational" (phi_j proportional to
        v_j exp(-KL_mj / temperature), the tightest such bound at temperature 1 (Hershey & Olsen 2007), which becomes
        "pairwise" as the temperature grows) or "monte_carlo" (unbiased; may be negative).
      temperature: of the variational estimator, positive.
      key: one key, or one key per posterior, [M, ...]; only for "monte_carlo".
      num_samples: draws from each posterior; only for "monte_carlo".
      prior_gradient: whether gradients flow into h, or only into the posterior that is compared with it.

    Returns:
      [M, ...] nats; 0 where absent.

    Raises:
      ValueError: unknown estimator, "monte_carlo" without a key, or shapes that do not match.
    """
    posteriors, present = observed(posteriors, present, log_weights)
    components, weights = _prior_components(posteriors, *mixture_weights(present, log_weights, prior_weight))
    if not prior_gradient:
        components = jax.lax.stop_gradient(components)
    if estimator == "monte_carlo":
        divergence = _monte_carlo_kl(posteriors, components, weights, key, num_samples)
    elif estimator in ESTIMATORS:
        paired = DiagonalGaussian(*(leaf[:, None] for leaf in posteriors))
        kls = gaussian_kl(paired, DiagonalGaussian(*(leaf[None] for leaf in components)))
        divergence = _kl_bound(kls, weights[None], None if estimator == "pairwise" else temperature)
    else:
        raise ValueError(f"estimator is {estimator!r}; allowed: {', '.join(ESTIMATORS)}")
    return jnp.where(present, divergence, 0.0)


def _prior_components(posteriors, weights, prior):
    """Return the components of h, [M + 1, ..., D], with N(0, I) last, and their weights, [M + 1, ...]."""
    standard = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:1]), posteriors)
    components = jax.tree.map(lambda *parts: jnp.concatenate(parts), posteriors, standard)
    return components, jnp.concatenate([weights, prior[None]])


def _kl_bound(kls: Array, weights: Array, temperature) -> Array:
    """Return sum_j phi_j (KL_mj + log phi_j - log v_j): kls [M, J, ...], weights [1, J, ...] -> [M, ...] nats.

    If the temperature is None, phi is v. Components of weight 0 are ignored.
    """
    active = jnp.broadcast_to(weights > 0.0, kls.shape)
    kls = jnp.where(active, kls, 0.0)
    if temperature is None:
        return jnp.sum(weights * kls, axis=1)
    log_weights = jnp.log(jnp.where(active, weights, 1.0))
    logits = log_weights - kls / temperature
    log_phi = jnp.where(active, logits - masked_logsumexp(logits, active, axis=1)[:, None], 0.0)
    phi = jnp.where(active, jnp.exp(log_phi), 0.0)
    return jnp.sum(phi * (kls + log_phi - log_weights), axis=1)


def _monte_carlo_kl(posteriors, components, weights, key, num_samples) -> Array:
    """Return mean_s log q_m(z_s) - log h(z_s), z_s ~ q_m: [M, ...] nats."""
    if key is None:
        raise ValueError("estimator 'monte_carlo' needs a key")
    log_weights = jnp.where(weights > 0.0, jnp.log(jnp.where(weights > 0.0, weights, 1.0)), -jnp.inf)
    density_under_prior = jax.vmap(lambda z: mixture_log_density(components, z, log_weights))
    log_ratio = lambda z: gaussian_log_density(posteriors, z) - density_under_prior(z)
    return jnp.mean(jax.vmap(log_ratio)(sample(key, posteriors, num_samples)), axis=0)


def _expand(weights: Array, ndim: int) -> Array:
    """Append axes of size 1 until ``weights`` has ``ndim`` axes."""
    return weights.reshape(weights.shape + (1,) * (ndim - weights.ndim))


def _sum_event(density, x: Array, event_ndims: int, mask: Array | None) -> Array:
    """Return the log-density of x, summed over the last ``event_ndims`` axes, of the entries in ``mask`` only."""
    values = density(x) if mask is None else jnp.where(mask, density(jnp.where(mask, x, 0.0)), 0.0)
    return jnp.sum(values, axis=tuple(range(values.ndim - event_ndims, values.ndim)))


def laplace_log_likelihood(
    x: Array, location: Array, scale: Array | float, event_ndims: int, mask: Array | None = None
) -> Array:
    """Return log Laplace(x; location, scale), summed over the last ``event_ndims`` axes: [...] nats.

    Here and in the next functions, ``mask`` is True for the entries of x that are counted; None if all are.
    """
    density = lambda x: -jnp.abs(x - location) / scale - jnp.log(2.0 * scale)
    return _sum_event(density, x, event_ndims, mask)


def normal_log_likelihood(
    x: Array, location: Array, scale: Array | float, event_ndims: int, mask: Array | None = None
) -> Array:
    """Return log N(x; location, scale^2), summed over the last ``event_ndims`` axes: [...] nats."""
    density = lambda x: -0.5 * (jnp.square((x - location) / scale) + _LOG_2PI) - jnp.log(scale)
    return _sum_event(density, x, event_ndims, mask)


def student_t_log_likelihood(
    x: Array, location: Array, scale: Array | float, degrees: float, event_ndims: int, mask: Array | None = None
) -> Array:
    """Return the log-density of Student's t with ``degrees`` of freedom, summed over the last axes: [...] nats."""
    constant = math.lgamma((degrees + 1.0) / 2.0) - math.lgamma(degrees / 2.0) - 0.5 * math.log(degrees * math.pi)
    squared = lambda x: jnp.square((x - location) / scale)
    density = lambda x: constant - jnp.log(scale) - 0.5 * (degrees + 1.0) * jnp.log1p(squared(x) / degrees)
    return _sum_event(density, x, event_ndims, mask)


def bernoulli_log_likelihood(x: Array, logits: Array, event_ndims: int, mask: Array | None = None) -> Array:
    """Return log Bernoulli(x; sigmoid(logits)), summed over the last ``event_ndims`` axes: [...] nats."""
    return _sum_event(lambda x: x * logits - jax.nn.softplus(logits), x, event_ndims, mask)


def categorical_log_likelihood(tokens: Array, logits: Array, mask: Array | None = None) -> Array:
    """Return the log-probability of token sequences.

    Args:
      tokens: [..., T] integers.
      logits: [..., T, V].
      mask: [..., T] bool, the tokens that are counted; None if all are.

    Returns:
      [...] nats.
    """
    if mask is None:
        mask = jnp.ones(tokens.shape, bool)
    logits = jnp.where(mask[..., None], logits, 0.0)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(mask, chosen - logsumexp(logits, axis=-1), 0.0), axis=-1)


def poisson_log_likelihood(x: Array, log_rate: Array, event_ndims: int, mask: Array | None = None) -> Array:
    """Return log Poisson(x; exp(log_rate)), summed over the last ``event_ndims`` axes: [...] nats."""
    density = lambda x: x * log_rate - jnp.exp(log_rate) - gammaln(x + 1.0)
    return _sum_event(density, x, event_ndims, mask)


def negative_binomial_log_likelihood(
    x: Array, log_mean: Array, log_dispersion: Array, event_ndims: int, mask: Array | None = None
) -> Array:
    """Return the log-density of a negative binomial, summed over the last ``event_ndims`` axes: [...] nats.

    Its variance is mean + mean^2 / r with the inverse dispersion r = exp(-log_dispersion), so it becomes Poisson as the
    dispersion goes to 0.
    """
    log_r = -log_dispersion
    r = jnp.exp(log_r)
    # log(r / (r + mean)) and log(mean / (r + mean)), without overflow
    log_failure, log_success = -jax.nn.softplus(log_mean - log_r), -jax.nn.softplus(log_r - log_mean)
    coefficient = lambda x: gammaln(x + r) - gammaln(r) - gammaln(x + 1.0)
    return _sum_event(lambda x: coefficient(x) + r * log_failure + x * log_success, x, event_ndims, mask)


def importance_weighted_bound(log_weights: Array, bound: str = "loose", present: Array | None = None) -> Array:
    """Return the importance-weighted bound on the log-evidence from samples of every component of a mixture.

    Source: MMVAE, Shi et al. 2019, arXiv 1911.03393.

    Args:
      log_weights: [M, S, ...] nats.
      bound: "loose" (mean over components of log-mean-exp over samples) or "tight" (log-mean-exp over both).
      present: [M, ...] bool, the components that are counted; None if all are.

    Returns:
      [...] nats; 0 where nothing is present.

    Raises:
      ValueError: unknown bound, or a mask of the wrong shape.
    """
    if present is None:
        present = jnp.ones(log_weights.shape[:1] + log_weights.shape[2:], bool)
    check_shape("present", present, log_weights.shape[:1] + log_weights.shape[2:])
    mask = jnp.broadcast_to(present[:, None], log_weights.shape)
    log_weights = jnp.where(mask, log_weights, 0.0)
    count = jnp.maximum(jnp.sum(present, axis=0), 1)
    num_samples = log_weights.shape[1]
    if bound == "loose":
        per_component = logsumexp(log_weights, axis=1) - math.log(num_samples)
        return jnp.sum(jnp.where(present, per_component, 0.0), axis=0) / count
    if bound == "tight":
        total = masked_logsumexp(log_weights, mask, axis=(0, 1)) - jnp.log(num_samples * count)
        return jnp.where(jnp.any(present, axis=0), total, 0.0)
    raise ValueError(f"bound is {bound!r}; allowed: {', '.join(BOUNDS)}")
