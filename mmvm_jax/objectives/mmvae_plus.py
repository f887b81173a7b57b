"""MMVAE+: a shared latent u from the mixture of the observed posteriors, and a private latent w_m per modality.

loss = -mean_{m in O} log mean_s w_ms (loose)  or  -log mean_{m in O, s} w_ms (tight),  (w_m, u) ~ q_m,
log w_ms = log p(x_m | w_m, u) + sum_{n in O, n != m} log p(x_n | w~_n, u)
           + beta ( log p(u) + log p(w_m) - log mean_{j in O} q_j(u) - log q_m(w_m) ),  w~_n ~ r_n

The decoders of other modalities never see w_m: their private latents come from learned auxiliary priors r_n, which
only training uses. The latent of encoders and decoders is [w, u]. The published model has Laplace posteriors and
priors; the scales of a posterior are a softmax over the dimensions times their number, so that they add up to a
constant, and r_n has mean 0.

With ``clusters`` above 0, p(u) is CMVAE's learned mixture, sum_c pi_c p(u - mu_c) with the standard p. CMVAE's
expectation over q(c | u) is then this log p(u), since its q(c | u) is the exact p(c | u).

Source: Palumbo, Daunhawer & Vogt 2023, ICLR, openreview sdQGxouELX; clusters: CMVAE, Palumbo et al. 2024, ICLR,
openreview k5THrhXDV3, without its diffusion decoders. The gradient "dreg" is that of MMVAE, and has the
same bias for mixtures.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import gaussian_log_density, sample, where_present
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.objectives.bounds import check_importance_options, importance_weighted_loss, log_mean_density
from mmvm_jax.objectives.interface import Functions, Hyperparameter, check_at_least
from mmvm_jax.objectives.latents import choose, with_sources
from mmvm_jax.objectives.noise import example_keys, modality_keys
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS: dict[str, Hyperparameter] = {}
LATENT_DISTRIBUTIONS = ("normal", "laplace")
ABSENT_PRIVATE = ("prior", "auxiliary")
_LEAST_SCALE = 1e-6  # of a Laplace posterior


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of MMVAE, and of the latent.

    Attributes:
      private_dim: number of latent dimensions that are private to each modality; the others are shared.
      latent_distribution: "normal" or "laplace", of posteriors and priors.
      absent_private: source of the private latent of an absent modality in ``posterior``, "prior" or "auxiliary".
      clusters: number of components of the learned prior of the shared latent; 0 for the standard prior.
    """

    num_samples: int = 1
    bound: str = "loose"
    gradient: str = "reparametrised"
    private_dim: int = 32
    latent_distribution: str = "normal"
    absent_private: str = "prior"
    clusters: int = 0

    def __post_init__(self):
        check_importance_options("mmvae_plus", self)
        check_at_least(0, "mmvae_plus", "clusters", self)
        for field, allowed in (
            ("latent_distribution", LATENT_DISTRIBUTIONS),
            ("absent_private", ABSENT_PRIVATE),
        ):
            if getattr(self, field) not in allowed:
                raise unknown_name(f"config.method.mmvae_plus.{field}", getattr(self, field), allowed)


def check(fields, latent_dim: int) -> None:
    """Raise UserError unless both the private and the shared part have at least one dimension."""
    if not 1 <= fields.private_dim < latent_dim:
        raise UserError(
            f"config.method.mmvae_plus.private_dim is {fields.private_dim}; "
            f"allowed: 1 to {latent_dim - 1}, below config.network.latent_dim"
        )


def is_gaussian(options: Options) -> bool:
    """Return whether posteriors are Gaussian."""
    return options.latent_distribution == "normal"


def init(key: Array, batch: Batch, functions: Functions, options: Options) -> dict:
    """Return the auxiliary priors, [M, W], initialised to the prior; the mean of Laplace ones stays 0.

    With clusters, also their means [C, U] and the logits of their weights [C].

    Raises:
      UserError: the private or the shared part of the latent has no dimension.
    """
    latent_dim = jax.eval_shape(functions.encode, batch.inputs).mean.shape[-1]
    check(options, latent_dim)
    zeros = jnp.zeros((len(functions.names), options.private_dim))
    params: dict = {"mean": zeros, "log_variance": zeros}
    if options.latent_distribution == "laplace":
        params = {"log_variance": zeros + math.log(2.0)}
    if options.clusters:
        # The means differ, because clusters with equal means would have equal gradients.
        means = jax.random.uniform(key, (options.clusters, latent_dim - options.private_dim), minval=-1.0, maxval=1.0)
        params["clusters"] = {"mean": means, "logits": jnp.zeros(options.clusters)}
    return params


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative importance-weighted bound: [B] nats. All decoders read every sample: M^2 S decodings."""
    present, beta = batch.present, hyper["beta"]
    posterior_key, auxiliary_key = jax.random.split(key)
    q = _distribution(where_present(present, functions.encode(batch.inputs)), options)
    z = _sample(modality_keys(posterior_key, batch.index, functions.identifiers), q, options)
    others = _auxiliary_samples(auxiliary_key, batch, functions, options)
    if options.gradient == "dreg":
        q = jax.lax.stop_gradient(q)
    q_w, q_u = _split(jax.tree.map(lambda leaf: leaf[:, None], q), options)  # [M, 1, B, W or U]
    components, active = jax.tree.map(lambda leaf: leaf[:, None], q_u), present[:, None, None]

    def log_weight(z):
        log_likelihood = functions.log_likelihood(batch, _as_read(z, others), present[:, None])
        w, u = _split(z, options)
        log_mixture = log_mean_density(_log_density(components, u[None], options), active)
        log_posterior = log_mixture + _log_density(q_w, w, options)
        log_prior = _log_density(_prior_like(w, options), w, options) + _shared_log_prior(u, functions, options)
        divergence = log_posterior - log_prior
        return jnp.sum(log_likelihood, axis=0) - beta * divergence, (log_likelihood, divergence)

    return importance_weighted_loss(functions.names, log_weight, z, present, beta, options)


def _auxiliary_samples(key: Array, batch: Batch, functions: Functions, options: Options) -> Array:
    """Return private latents for the decoder of axis 0 with the samples of the modality of axis 1: [M, M, S, B, W]."""
    source_keys = modality_keys(key, batch.index, functions.identifiers)
    fold_in = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))
    keys = jax.vmap(fold_in, (None, 0))(source_keys, functions.identifiers)  # [M, M, B]
    repeat = lambda leaf: jnp.broadcast_to(leaf[:, None, None], (*keys.shape, options.private_dim))
    auxiliary = jax.tree.map(repeat, _auxiliary_priors(functions, options))
    return jax.vmap(lambda k, r: _sample(k, r, options))(keys, auxiliary)


def _as_read(z: Array, others: Array) -> Array:
    """Return [w, u] for every decoder: z [M, S, B, D], others' private latents [M, M, S, B, W] -> [M, M, S, B, D]."""
    own = jnp.eye(len(z), dtype=bool)[:, :, None, None, None]
    z = jnp.broadcast_to(z[None], (len(z), *z.shape))
    w, u = jnp.split(z, [others.shape[-1]], axis=-1)
    return jnp.concatenate([jnp.where(own, w, others), u], axis=-1)


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return components [M, M, B, D]: axis 0 is the observed modality that u comes from, axis 1 the decoder with its w.

    ``absent_private`` determines the w of an absent modality. Laplace components are given by mean and variance. The
    sources are those of u. With clusters, axis 0 has M + C entries, and u comes from a cluster if nothing is observed.
    """
    num_modalities = len(present)
    q = _distribution(where_present(present, posteriors), options)  # the prior where absent
    w, u = _split(q, options)
    if options.absent_private == "auxiliary":
        auxiliary = jax.tree.map(lambda leaf: leaf[:, None], _auxiliary_priors(functions, options))
        w = jax.tree.map(lambda own, other: jnp.where(present[..., None], own, other), w, auxiliary)
    active = present | ~jnp.any(present, axis=0, keepdims=True)
    log_weights = jax.nn.log_softmax(jnp.where(active, 0.0, -jnp.inf).astype(q.mean.dtype), axis=0)
    sources = functions.identifiers
    if options.clusters:
        u, log_weights = _with_clusters(u, log_weights, present, functions, options)
        sources = jnp.concatenate([sources, jnp.arange(options.clusters, dtype=sources.dtype)])
    repeat = lambda leaf, axis, count: jnp.repeat(jnp.expand_dims(leaf, axis), count, axis)
    pair = lambda own, shared: jnp.concatenate(
        [repeat(own, 0, len(sources)), repeat(shared, 1, num_modalities)], axis=-1
    )
    mixture = LatentMixture(jax.tree.map(pair, w, u), repeat(log_weights, 1, num_modalities))
    return with_sources(mixture, sources[:, None])


def _with_clusters(u, log_weights, present, functions, options) -> tuple[DiagonalGaussian, Array]:
    """Append the clusters to the components of u and their weights: [M + C, B, U], [M + C, B].

    Where nothing is observed, only the clusters have a weight; elsewhere they have none.
    """
    clusters, log_shares = _clusters(functions, options)
    append = lambda own, one: jnp.concatenate([own, jnp.repeat(one[:, None], own.shape[1], axis=1)])
    something = jnp.any(present, axis=0, keepdims=True)
    kept = append(jnp.where(something, log_weights, -jnp.inf), log_shares)
    is_cluster = jnp.arange(len(kept))[:, None] >= len(log_weights)
    return jax.tree.map(append, u, clusters), jnp.where(is_cluster & something, -jnp.inf, kept)


def draw(key: Array, index: Array, mixture: LatentMixture, options: Options) -> Array:
    """Draw once per example, [M, B, D]: a source and its u, shared by all decoders, and a w per decoder.

    The noise of u is keyed by the source, the noise of w by the modality whose decoder reads it.
    """
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))

    def draw_example(key, components, log_weights, sources):
        choice_key, shared_key, private_key = jax.random.split(key, 3)
        source = choose(choice_key, log_weights, sources)[0]
        w, u = _split(jax.tree.map(lambda leaf: leaf[source], components), options)  # [M, W or U]
        one = dataclasses.replace(options, num_samples=1)
        u = _sample(fold_in(shared_key, sources[source, :1]), jax.tree.map(lambda leaf: leaf[:1], u), one)[:, 0]
        w = _sample(fold_in(private_key, jnp.diagonal(sources)), w, one)[:, 0]
        return jnp.concatenate([w, jnp.broadcast_to(u, (len(w), u.shape[-1]))], axis=-1)

    keys = example_keys(key, index)
    return jax.vmap(draw_example, in_axes=(0, 2, 2, 2), out_axes=1)(keys, *mixture)


def prior(functions: Functions, options: Options, num_examples: int, latent_dim: int) -> LatentMixture:
    """Return the posterior given no modality, as by ``posterior``. ``draw`` takes one u for all decoders."""
    zeros = jnp.zeros((len(functions.names), num_examples, latent_dim))
    return posterior(DiagonalGaussian(zeros, zeros), jnp.zeros(zeros.shape[:-1], bool), functions, options)


def log_prior_ratio(mixture: LatentMixture, z: Array, functions: Functions, options: Options) -> tuple[Array, Array]:
    """Return log p(z) - log q(z) of a draw from ``posterior``: of u [B], and of each w_m [M, B]; nats."""
    (q_w, q_u), (w, u) = _split(mixture.components, options), _split(z, options)
    # All decoders have the same u, and all components the same w_m.
    log_posterior = jax.nn.logsumexp(mixture.log_weights + _log_density(q_u, u[None], options), axis=0)
    shared = _shared_log_prior(u, functions, options) - log_posterior
    own = jax.tree.map(lambda leaf: leaf[0], q_w)
    return shared[0], _log_density(_prior_like(w, options), w, options) - _log_density(own, w, options)


# Laplace distributions are given by mean and variance too; the variance is twice the squared scale.


def _distribution(encoded: DiagonalGaussian, options: Options) -> DiagonalGaussian:
    """Convert an encoder's output to a distribution. For Laplace, its log-variances are the logits of the scales."""
    if options.latent_distribution == "normal":
        return encoded
    scales = [jax.nn.softmax(part, axis=-1) * part.shape[-1] for part in _split(encoded.log_variance, options)]
    scale = jnp.concatenate(scales, axis=-1) + _LEAST_SCALE
    return encoded._replace(log_variance=math.log(2.0) + 2.0 * jnp.log(scale))


def _prior_like(z: Array, options: Options) -> DiagonalGaussian:
    """Return N(0, I), or the Laplace distribution of scale 1, with the shape of z."""
    log_variance = 0.0 if options.latent_distribution == "normal" else math.log(2.0)
    return DiagonalGaussian(jnp.zeros_like(z), jnp.full_like(z, log_variance))


def _shared_log_prior(u: Array, functions: Functions, options: Options) -> Array:
    """Return log p(u): [..., U] -> [...] nats."""
    if not options.clusters:
        return _log_density(_prior_like(u, options), u, options)
    expand = lambda leaf: leaf.reshape(len(leaf), *(1,) * (u.ndim - 1), *leaf.shape[1:])
    clusters, log_shares = jax.tree.map(expand, _clusters(functions, options))
    return jax.nn.logsumexp(log_shares + _log_density(clusters, u[None], options), axis=0)


def _clusters(functions: Functions, options: Options) -> tuple[DiagonalGaussian, Array]:
    """Return the components [C, U] of the prior of u, and the logarithms of their weights [C]."""
    params = functions.method_params["clusters"]
    components = _prior_like(params["mean"], options)._replace(mean=params["mean"])
    return components, jax.nn.log_softmax(params["logits"])


def _auxiliary_priors(functions: Functions, options: Options) -> DiagonalGaussian:
    """Return r_n of every modality: [M, W]."""
    log_variance = functions.method_params["log_variance"]
    return DiagonalGaussian(functions.method_params.get("mean", jnp.zeros_like(log_variance)), log_variance)


def _split(tree, options: Options):
    """Return the private and the shared part, [..., W] and [..., U], of arrays [..., D]."""
    private = jax.tree.map(lambda leaf: leaf[..., : options.private_dim], tree)
    return private, jax.tree.map(lambda leaf: leaf[..., options.private_dim :], tree)


def _log_density(q: DiagonalGaussian, z: Array, options: Options) -> Array:
    if options.latent_distribution == "normal":
        return gaussian_log_density(q, z)
    log_scale = 0.5 * (q.log_variance - math.log(2.0))
    return -jnp.sum(jnp.abs(z - q.mean) * jnp.exp(-log_scale) + log_scale + math.log(2.0), axis=-1)


def _sample(keys: Array, q: DiagonalGaussian, options: Options) -> Array:
    """Draw reparametrised samples with one key per distribution: keys [M, ...], q [M, ..., D] -> [M, S, ..., D]."""
    if options.latent_distribution == "normal":
        return jnp.swapaxes(sample(keys, q, options.num_samples), 0, 1)
    shape, dtype = (options.num_samples, q.mean.shape[-1]), q.mean.dtype
    noise = jax.vmap(lambda key: jax.random.laplace(key, shape, dtype))(keys.reshape(-1))
    noise = jnp.moveaxis(noise.reshape(*keys.shape, *shape), -2, 1)
    return q.mean[:, None] + jnp.exp(0.5 * (q.log_variance - math.log(2.0)))[:, None] * noise
