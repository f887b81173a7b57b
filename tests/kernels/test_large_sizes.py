"""Every kernel, compiled in float32 at sizes that people use, against its definition in NumPy float64.

Compilers cut large arrays into pieces, and may get only those wrong: jaxlib 0.10.2 computes a wrong ``kl_to_mixture``
of more than 32,768 posteriors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, log_softmax, logsumexp

from mmvm_jax import aggregation, distributions
from mmvm_jax.types import DiagonalGaussian

SIZES = ((5, 10_000, 16), (2, 40_000, 16))  # M, B, D
WIDE = (2, 10_000, 512)
KEY = jax.random.key(3)
LOG_2PI = np.log(2.0 * np.pi)
TOLERANCE = 1e-5  # of the largest value


@functools.cache
def make_inputs(size, masked):
    """Posteriors [M, B, D], which are present [M, B] and a latent [B, D]; of some examples nothing is present."""
    generator = np.random.default_rng(sum(size))
    mean, log_variance = generator.normal(size=(2, *size)).astype(np.float32)
    z = generator.normal(size=size[1:]).astype(np.float32)
    present = generator.random(size[:2]) < 0.7 if masked else np.ones(size[:2], bool)
    return DiagonalGaussian(mean, log_variance), present, z


def in_float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, tree)


def check(kernel, oracle, inputs):
    computed, expected = jax.jit(kernel)(*inputs), oracle(*in_float64(inputs))
    for one, other in zip(jax.tree.leaves(computed), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        scale = np.max(np.abs(other), initial=0.0, where=np.isfinite(other))
        np.testing.assert_allclose(np.asarray(one, np.float64), other, rtol=0.0, atol=TOLERANCE * scale)


def log_density(q, z):
    mean, log_variance = q
    return -0.5 * np.sum(LOG_2PI + log_variance + np.square(z - mean) * np.exp(-log_variance), axis=-1)


def kl(q, p):
    (mean, log_variance), (other_mean, other_log_variance) = q, p
    log_ratio, squared = log_variance - other_log_variance, np.square(mean - other_mean)
    return 0.5 * np.sum(np.exp(log_ratio) - 1.0 - log_ratio + squared * np.exp(-other_log_variance), axis=-1)


def shares_of(present):
    """[M, B] -> [M, B], uniform over the present."""
    return present / np.maximum(present.sum(axis=0), 1)


def rows(q):
    """The Gaussians along the first axis."""
    return [DiagonalGaussian(*pair) for pair in zip(*q)]


def kls_to_components(q):
    """[M, M + 1, B] to all posteriors and N(0, I)."""
    components = [*rows(q), DiagonalGaussian(0.0 * q.mean[0], 0.0 * q.mean[0])]
    return np.stack([np.stack([kl(one, other) for other in components]) for one in rows(q)])


def component_weights(present, alpha):
    """[M + 1, B] of the mixture's components."""
    nothing = ~present.any(axis=0)
    prior = np.where(nothing, 1.0, alpha)
    return np.concatenate([(1.0 - alpha) * shares_of(present), prior[None]])


def pairwise(q, present, z, alpha):
    return present * np.sum(component_weights(present, alpha) * kls_to_components(q), axis=1)


def variational(q, present, z, alpha, temperature):
    weights, kls = component_weights(present, alpha), kls_to_components(q)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weights = np.log(weights)
        log_phi = log_softmax(log_weights - kls / temperature, axis=1)
        terms = np.exp(log_phi) * (kls + log_phi - log_weights)
    return present * np.sum(np.where(weights > 0, terms, 0.0), axis=1)


def monte_carlo(q, present, z, alpha):
    noise = np.asarray(jax.random.normal(KEY, (1, *q.mean.shape)), np.float64)[0]
    draws = q.mean + np.exp(0.5 * q.log_variance) * np.where(present[..., None], noise, 0.0)
    with np.errstate(divide="ignore"):
        log_weights = np.log(component_weights(present, alpha))
    components = [*rows(q), DiagonalGaussian(0.0 * q.mean[0], 0.0 * q.mean[0])]
    under_prior = [
        logsumexp([w + log_density(one, draw) for w, one in zip(log_weights, components)], axis=0) for draw in draws
    ]
    return np.where(present, log_density(q, draws) - np.stack(under_prior), 0.0)


def product(q, present, z, prior_expert):
    precision = present[..., None] * np.exp(-q.log_variance)
    total = precision.sum(axis=0) + (prior_expert | ~present.any(axis=0)[:, None])
    return DiagonalGaussian(np.sum(precision * q.mean, axis=0) / total, -np.log(total))


def average(q, present, z):
    shares, nothing = shares_of(present)[..., None], ~present.any(axis=0)[:, None]
    variance = np.sum(shares * np.exp(q.log_variance), axis=0) + nothing
    return DiagonalGaussian(np.sum(shares * q.mean, axis=0), np.log(variance))


def barycentre(q, present, z):
    shares, nothing = shares_of(present)[..., None], ~present.any(axis=0)[:, None]
    scale = np.sum(shares * np.exp(0.5 * q.log_variance), axis=0) + nothing
    return DiagonalGaussian(np.sum(shares * q.mean, axis=0), 2.0 * np.log(scale))


def hellinger(q, present, z):
    """Moments of sum_ij sqrt(q_i q_j), added up pair by pair."""
    mean, precision = q.mean, np.exp(-q.log_variance)
    total, first, second = 0.0, 0.0, 0.0
    for i, j in np.ndindex(len(mean), len(mean)):
        half = 0.5 * (precision[i] + precision[j])
        log_height = 0.25 * (np.log(precision[i]) + np.log(precision[j])) - 0.5 * np.log(half)
        gap = np.square(mean[i] - mean[j]) * precision[i] * precision[j] / half
        weight = ((present[i] & present[j]) * np.exp(np.sum(log_height - gap / 8.0, axis=-1)))[:, None]
        centre = 0.5 * (precision[i] * mean[i] + precision[j] * mean[j]) / half
        total, first = total + weight, first + weight * centre
        second = second + weight * (np.square(centre) + 1.0 / half)
    nothing = ~present.any(axis=0)[:, None]
    total, second = total + nothing, second + nothing
    return DiagonalGaussian(first / total, np.log(second / total - np.square(first / total)))


def of_subsets(merge, q, present, z):
    merged = [merge(q, present & row[:, None], z) for row in aggregation.subsets(len(present))]
    return DiagonalGaussian(*map(np.stack, zip(*merged)))


def products_of_subsets(q, present, z):
    return of_subsets(functools.partial(product, prior_expert=False), q, present, z)


def contained(q, present, z):
    return np.stack([present[row].all(axis=0) for row in aggregation.subsets(len(present))])


def uniform_mixture(components, active):
    """Components [K, 1, B, D], N(0, I) where not active, and log-weights [K, 1, B], uniform where none is."""
    count = active.sum(axis=0)
    log_weights = np.where(active | (count == 0), -np.log(np.where(count == 0, len(active), count)), -np.inf)
    return [*(np.where(active[..., None], leaf, 0.0)[:, None] for leaf in components), log_weights[:, None]]


def unequal_log_weights(q, present, xp):
    return xp.where(present, 0.3 * q.mean[..., 0], -xp.inf)


def mixture_density(q, present, z):
    with np.errstate(divide="ignore"):
        return logsumexp(unequal_log_weights(q, present, np) + log_density(q, z), axis=0)


def mixture_weights(q, present, z):
    weights = component_weights(present, 0.3)
    return weights[:-1], weights[-1]


def importance_bound(q, present, z, bound):
    """Of log-weights [M, D, B]: the last axis stands for the samples."""
    samples, count = np.moveaxis(q.mean, -1, 1), np.maximum(present.sum(axis=0), 1)
    each = logsumexp(samples, axis=1) - np.log(samples.shape[1])
    if bound == "loose":
        return np.sum(present * each, axis=0) / count
    with np.errstate(divide="ignore"):
        tight = logsumexp(np.where(present, each, -np.inf), axis=0) - np.log(count)
    return np.where(present.any(axis=0), tight, 0.0)


d, a = distributions, aggregation
divergence = lambda **options: lambda q, present, z: d.kl_to_mixture(q, present=present, **options)
bound = lambda name: lambda q, present, z: d.importance_weighted_bound(jnp.moveaxis(q.mean, -1, 1), name, present)
KERNELS = {  # name: (kernel, oracle), both of posteriors [M, B, D], present [M, B] and a latent [B, D]
    "where_present": (
        lambda q, present, z: d.where_present(present, q),
        lambda q, present, z: [np.where(present[..., None], leaf, 0.0) for leaf in q],
    ),
    "masked_logsumexp": (
        lambda q, present, z: d.masked_logsumexp(q.mean, jnp.broadcast_to(present[..., None], q.mean.shape), 0),
        lambda q, present, z: logsumexp(np.where(present[..., None], q.mean, -np.inf), axis=0),
    ),
    "mixture_log_density": (
        lambda q, present, z: d.mixture_log_density(q, z, unequal_log_weights(q, present, jnp)),
        mixture_density,
    ),
    "mixture_weights": (lambda q, present, z: d.mixture_weights(present, prior_weight=0.3), mixture_weights),
    "kl_pairwise": (divergence(), functools.partial(pairwise, alpha=0.0)),
    "kl_pairwise_prior": (divergence(prior_weight=0.3), functools.partial(pairwise, alpha=0.3)),
    "kl_variational": (
        divergence(estimator="variational", prior_weight=0.3, temperature=2.0),
        functools.partial(variational, alpha=0.3, temperature=2.0),
    ),
    "kl_monte_carlo": (
        divergence(estimator="monte_carlo", prior_weight=0.3, key=KEY),
        functools.partial(monte_carlo, alpha=0.3),
    ),
    "average_of_experts": (lambda q, present, z: a.average_of_experts(q, present), average),
    "product_of_experts": (
        lambda q, present, z: a.product_of_experts(q, present),
        functools.partial(product, prior_expert=False),
    ),
    "product_with_prior": (
        lambda q, present, z: a.product_of_experts(q, present, prior_expert=True),
        functools.partial(product, prior_expert=True),
    ),
    "barycentre_of_experts": (lambda q, present, z: a.barycentre_of_experts(q, present), barycentre),
    "hellinger_of_experts": (lambda q, present, z: a.hellinger_of_experts(q, present), hellinger),
    "subset_barycentres": (
        lambda q, present, z: a.subset_barycentres(q, present),
        functools.partial(of_subsets, barycentre),
    ),
    "subset_mask": (lambda q, present, z: a.subset_mask(present), contained),
    "subset_posteriors": (lambda q, present, z: a.subset_posteriors(q, present), products_of_subsets),
    "mixture_of_experts": (
        lambda q, present, z: a.mixture_of_experts(q, present),
        lambda q, present, z: uniform_mixture(q, present),
    ),
    "mixture_of_products": (
        lambda q, present, z: a.mixture_of_products(q, present),
        lambda q, present, z: uniform_mixture(products_of_subsets(q, present, z), contained(q, present, z)),
    ),
    "importance_loose": (bound("loose"), functools.partial(importance_bound, bound="loose")),
    "importance_tight": (bound("tight"), functools.partial(importance_bound, bound="tight")),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_a_masked_kernel(name, size):
    check(*KERNELS[name], make_inputs(size, True))


@pytest.mark.parametrize("name", KERNELS)
def test_a_masked_kernel_of_which_nothing_is_absent(name):
    """The mask is known to the compiler, which makes another program of it."""
    kernel, oracle = KERNELS[name]
    q, present, z = make_inputs(SIZES[0], False)
    check(lambda q, z: kernel(q, present, z), lambda q, z: oracle(q, present, z), (q, z))


def standard_normal_kl(q, z):
    return kl(q, DiagonalGaussian(np.zeros(1), np.zeros(1)))


def distance(q, z):
    (mean, other_mean), (scale, other_scale) = q.mean, np.exp(0.5 * q.log_variance)
    return np.sum(np.square(mean - other_mean) + np.square(scale - other_scale), axis=-1)


def draws(q, z):
    noise = np.asarray(jax.random.normal(KEY, q.mean.shape), np.float64)
    return q.mean + np.exp(0.5 * q.log_variance) * noise


def tokens_of(z, xp):
    """Tokens [..., T], logits [..., T, V] and the mask of the tokens [..., T], from [..., D]."""
    logits = z.reshape(*z.shape[:-1], -1, 8)
    tokens = xp.argmin(logits, axis=-1)
    return tokens, logits, tokens < 6


def token_likelihood(q, z):
    tokens, logits, mask = tokens_of(z, np)
    chosen = np.take_along_axis(log_softmax(logits, axis=-1), tokens[..., None], axis=-1)[..., 0]
    return np.sum(np.where(mask, chosen, 0.0), axis=-1)


first = lambda q: DiagonalGaussian(q.mean[0], q.log_variance[0])
second = lambda q: DiagonalGaussian(q.mean[1], q.log_variance[1])
counts = lambda z, xp: xp.floor(3.0 * abs(z))
UNMASKED = {  # name: (kernel, oracle), both of two Gaussians [2, B, D] and data [1, B, D]
    "gaussian_log_density": (d.gaussian_log_density, log_density),
    "gaussian_kl": (lambda q, z: d.gaussian_kl(first(q), second(q)), lambda q, z: kl(first(q), second(q))),
    "gaussian_kl_standard": (lambda q, z: d.gaussian_kl(q), standard_normal_kl),
    "wasserstein2_squared": (lambda q, z: d.wasserstein2_squared(first(q), second(q)), distance),
    "sample": (lambda q, z: d.sample(KEY, q), draws),
    "laplace": (
        lambda q, z: d.laplace_log_likelihood(z, q.mean, 0.75, 1),
        lambda q, z: np.sum(-np.abs(z - q.mean) / 0.75 - np.log(1.5), axis=-1),
    ),
    "normal": (
        lambda q, z: d.normal_log_likelihood(z, q.mean, 0.75, 1),
        lambda q, z: np.sum(-0.5 * np.square((z - q.mean) / 0.75) - np.log(0.75) - 0.5 * LOG_2PI, axis=-1),
    ),
    "bernoulli": (
        lambda q, z: d.bernoulli_log_likelihood(z, q.mean, 1),
        lambda q, z: np.sum(z * q.mean - np.logaddexp(0.0, q.mean), axis=-1),
    ),
    "poisson": (
        lambda q, z: d.poisson_log_likelihood(counts(z, jnp), q.mean, 1),
        lambda q, z: np.sum(counts(z, np) * q.mean - np.exp(q.mean) - gammaln(counts(z, np) + 1.0), axis=-1),
    ),
    "categorical": (lambda q, z: d.categorical_log_likelihood(*tokens_of(z, jnp)), token_likelihood),
}


@pytest.mark.parametrize("name", UNMASKED)
def test_an_unmasked_kernel(name):
    q, _, z = make_inputs(SIZES[1], False)
    check(*UNMASKED[name], (q, z[None]))


@pytest.mark.parametrize("name", ["kl_pairwise", "product_of_experts", "hellinger_of_experts", "importance_tight"])
def test_a_masked_kernel_of_512_dimensions(name):
    check(*KERNELS[name], make_inputs(WIDE, True))


@pytest.mark.parametrize("name", ["gaussian_log_density", "gaussian_kl", "wasserstein2_squared", "categorical"])
def test_an_unmasked_kernel_of_512_dimensions(name):
    q, _, z = make_inputs(WIDE, False)
    check(*UNMASKED[name], (q, z[None]))
