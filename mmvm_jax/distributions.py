"""Log densities, divergences and mixtures of diagonal Gaussians, and the likelihoods of data.

Pure functions of arrays that work under ``jit``, ``vmap`` and ``grad`` in float32 and float64. Every value is
in nats and summed over the latent or event axes, which come last; the axes before them are free. What an
absent entry of a masked argument holds, NaN included, changes neither values nor gradients.

Sources: MMVM is Sutter et al. 2024, arXiv 2403.05300.
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
    """N(0, I) with the shape of ``gaussian``."""
    return DiagonalGaussian(jnp.zeros_like(gaussian.mean), jnp.zeros_like(gaussian.log_variance))


def check_posteriors(posteriors: DiagonalGaussian, present: Array, log_weights: Array | None = None) -> None:
    """Raise ValueError unless mean, log-variance, mask [M, ...] and weights [M] or [M, ...] fit together.

    Arrays of other shapes might broadcast, and give a wrong value without an error.
    """
    shape = posteriors.mean.shape
    check_shape("log_variance", posteriors.log_variance, shape)
    check_shape("present", present, shape[:-1])
    if log_weights is not None:
        check_shape("log_weights", log_weights, shape[:1], shape[:-1])


def where_present(present: Array, gaussian: DiagonalGaussian) -> DiagonalGaussian:
    """Replaces absent entries by N(0, I), so that nothing they hold reaches a value or a gradient.

    Args:
      present: [...] bool.
      gaussian: [..., D].
    """
    return DiagonalGaussian(*(jnp.where(present[..., None], leaf, 0.0) for leaf in gaussian))


def gaussian_log_density(gaussian: DiagonalGaussian, z: Array) -> Array:
    """log N(z; gaussian): [..., D] -> [...] nats."""
    squared = jnp.square(z - gaussian.mean) * jnp.exp(-gaussian.log_variance)
    return -0.5 * jnp.sum(_LOG_2PI + gaussian.log_variance + squared, axis=-1)


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian | None = None) -> Array:
    """KL(q || p), with p = N(0, I) if None: [..., D] -> [...] nats.

    Written with ``expm1``: near q = p the terms of the usual form cancel to nothing in float32.
    """
    if p is None:
        p = standard_normal_like(q)
    log_ratio = q.log_variance - p.log_variance
    squared = jnp.square(q.mean - p.mean) * jnp.exp(-p.log_variance)
    return 0.5 * jnp.sum(jnp.expm1(log_ratio) - log_ratio + squared, axis=-1)


def wasserstein2_squared(q: DiagonalGaussian, p: DiagonalGaussian) -> Array:
    """Squared 2-Wasserstein distance: [..., D] -> [...], in squared latent units."""
    scale_q, scale_p = jnp.exp(0.5 * q.log_variance), jnp.exp(0.5 * p.log_variance)
    return jnp.sum(jnp.square(q.mean - p.mean) + jnp.square(scale_q - scale_p), axis=-1)


def sample(key: Array, gaussian: DiagonalGaussian, num_samples: int | None = None) -> Array:
    """Reparametrised draws from a Gaussian.

    Args:
      key: one key, or one key for every Gaussian, [...]; the latter makes a draw independent of its neighbours.
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
    """log sum_k exp(log_weights_k) N(z; components_k).

    Args:
      components: [K, ..., D].
      z: [..., D].
      log_weights: [K] or [K, ...], normalised; -inf switches a component off, whatever it holds.

    Returns:
      [...] nats.
    """
    log_weights = _expand(log_weights, components.mean.ndim - 1)
    active = jnp.broadcast_to(log_weights > -jnp.inf, components.mean.shape[:-1])
    log_densities = gaussian_log_density(where_present(active, components), z[None])
    return masked_logsumexp(log_weights + log_densities, active, axis=0)


def masked_logsumexp(values: Array, mask: Array, axis) -> Array:
    """``logsumexp`` of the entries where ``mask`` holds; gradients of the others are exactly 0."""
    kept = jnp.where(mask, values, -jnp.inf)
    any_kept = jnp.any(mask, axis=axis, keepdims=True)
    result = logsumexp(jnp.where(any_kept, kept, 0.0), axis=axis)
    return jnp.where(jnp.any(mask, axis=axis), result, -jnp.inf)


def mixture_weights(
    present: Array, log_weights: Array | None = None, prior_weight: Array | float = 0.0
) -> tuple[Array, Array]:
    """Weights of the data-dependent prior of MMVM: the present posteriors, and N(0, I).

    Args:
      present: [M, ...] bool.
      log_weights: [M] or [M, ...], not necessarily normalised; None for uniform ones.
      prior_weight: alpha, the weight of N(0, I), in [0, 1].

    Returns:
      (weights [M, ...], prior [...]), which add up to 1; the weights are 0 where absent, and prior is 1 where
      nothing is present.
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
    """KL(q_m || h) of every posterior to the mixture h of all of them and N(0, I) (MMVM, equation 4).

    h(z) = sum_j v_j q_j(z) + alpha N(z; 0, I), with v renormalised over the present and scaled by 1 - alpha. The
    divergence has no closed form; any phi on the simplex bounds it by sum_j phi_j (KL_mj + log phi_j - log v_j).

    Args:
      posteriors: [M, ..., D].
      log_weights: [M] or [M, ...] of the posteriors; None for uniform ones.
      present: [M, ...] bool; None if all are.
      prior_weight: alpha, in [0, 1].
      estimator: "pairwise" (phi = v, which the authors' code trains), "variational" (phi_j proportional to
        v_j exp(-KL_mj / temperature); at temperature 1 the tightest such bound, Hershey & Olsen 2007; pairwise
        as the temperature grows) or "monte_carlo" (unbiased, may be negative).
      temperature: of the variational estimator, positive.
      key: one key, or one a posterior [M, ...]; for "monte_carlo" only.
      num_samples: draws from each posterior, for "monte_carlo" only.
      prior_gradient: whether gradients flow into h, or only into the posterior compared with it.

    Returns:
      [M, ...] nats: 0 where absent, and throughout where nothing is present.

    Raises:
      ValueError: unknown estimator, "monte_carlo" without a key, or shapes that do not fit together.
    """
    if present is None:
        present = jnp.ones(posteriors.mean.shape[:-1], bool)
    check_posteriors(posteriors, present, log_weights)
    posteriors = where_present(present, posteriors)
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
    """The components of h, [M + 1, ..., D], the last being N(0, I), and their weights, [M + 1, ...]."""
    standard = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:1]), posteriors)
    components = jax.tree.map(lambda *parts: jnp.concatenate(parts), posteriors, standard)
    return components, jnp.concatenate([weights, prior[None]])


def _kl_bound(kls: Array, weights: Array, temperature) -> Array:
    """sum_j phi_j (KL_mj + log phi_j - log v_j): kls [M, J, ...], weights [1, J, ...] -> [M, ...].

    Without a temperature phi is v. A component of weight 0 takes no part.
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
    """mean_s log q_m(z_s) - log h(z_s), z_s ~ q_m: [M, ...]."""
    if key is None:
        raise ValueError("estimator 'monte_carlo' needs a key")
    log_weights = jnp.where(weights > 0.0, jnp.log(jnp.where(weights > 0.0, weights, 1.0)), -jnp.inf)
    density_under_prior = jax.vmap(lambda z: mixture_log_density(components, z, log_weights))
    z = sample(key, posteriors, num_samples)
    log_ratio = lambda one: gaussian_log_density(posteriors, one) - density_under_prior(one)
    return jnp.mean(jax.vmap(log_ratio)(z), axis=0)


def _expand(weights: Array, ndim: int) -> Array:
    """Appends axes of size 1 until ``weights`` has ``ndim`` of them."""
    return weights.reshape(weights.shape + (1,) * (ndim - weights.ndim))


def _sum_event(values: Array, event_ndims: int) -> Array:
    return jnp.sum(values, axis=tuple(range(values.ndim - event_ndims, values.ndim)))


def laplace_log_likelihood(x: Array, location: Array, scale: Array | float, event_ndims: int) -> Array:
    """log Laplace(x; location, scale), summed over the last ``event_ndims`` axes: [...] nats."""
    return _sum_event(-jnp.abs(x - location) / scale - jnp.log(2.0 * scale), event_ndims)


def normal_log_likelihood(x: Array, location: Array, scale: Array | float, event_ndims: int) -> Array:
    """log N(x; location, scale^2), summed over the last ``event_ndims`` axes: [...] nats."""
    squared = jnp.square((x - location) / scale)
    return _sum_event(-0.5 * (squared + _LOG_2PI) - jnp.log(scale), event_ndims)


def bernoulli_log_likelihood(x: Array, logits: Array, event_ndims: int) -> Array:
    """log Bernoulli(x; sigmoid(logits)), summed over the last ``event_ndims`` axes: [...] nats."""
    return _sum_event(x * logits - jax.nn.softplus(logits), event_ndims)


def categorical_log_likelihood(tokens: Array, logits: Array, mask: Array | None = None) -> Array:
    """log-probability of token sequences.

    Args:
      tokens: [..., T] integers.
      logits: [..., T, V].
      mask: [..., T] bool, the tokens that count; None if all do.

    Returns:
      [...] nats.
    """
    if mask is None:
        mask = jnp.ones(tokens.shape, bool)
    logits = jnp.where(mask[..., None], logits, 0.0)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(mask, chosen - logsumexp(logits, axis=-1), 0.0), axis=-1)


def poisson_log_likelihood(x: Array, log_rate: Array, event_ndims: int) -> Array:
    """log Poisson(x; exp(log_rate)), summed over the last ``event_ndims`` axes: [...] nats."""
    return _sum_event(x * log_rate - jnp.exp(log_rate) - gammaln(x + 1.0), event_ndims)


def importance_weighted_bound(log_weights: Array, bound: str = "loose", present: Array | None = None) -> Array:
    """Importance-weighted bound on the log-evidence from samples of every mixture component (MMVAE, 1911.03393).

    Args:
      log_weights: [M, S, ...] nats.
      bound: "loose" (mean over components of log-mean-exp over samples) or "tight" (log-mean-exp over both).
      present: [M, ...] bool, the components that count; None if all do.

    Returns:
      [...] nats; 0 where nothing is present.

    Raises:
      ValueError: unknown bound, or a mask of another shape.
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
