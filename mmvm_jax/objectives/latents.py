"""Mixtures of posteriors that the decoders read, draws from them, and the standard normal prior."""

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import (
    gaussian_log_density,
    mixture_log_density,
    sample,
    standard_normal_like,
    where_present,
)
from mmvm_jax.objectives.interface import Functions
from mmvm_jax.objectives.noise import example_keys
from mmvm_jax.types import Array, DiagonalGaussian, LatentMixture


def own_or_mixture(
    posteriors: DiagonalGaussian, present: Array, identifiers: Array, scores: Array | None = None
) -> LatentMixture:
    """Return each modality's own posterior if it is observed, else the mixture of the observed ones.

    The components are [M, M, B, D]: axis 0 is the component, axis 1 the decoder. If nothing is observed, all are
    N(0, I). The sources are the modalities, so in one draw the decoders of all absent modalities read the same latent
    of the same observed modality.

    Args:
      posteriors: [M, B, D].
      present: [M, B] bool.
      identifiers: [M] uint32, of the modalities.
      scores: [M, B], unnormalised log-weights of the mixture; None for uniform ones.
    """
    num_modalities = present.shape[0]
    components = where_present(present, posteriors)
    scores = jnp.zeros(present.shape, components.mean.dtype) if scores is None else scores
    something = jnp.any(present, axis=0)
    mixture = jnp.where(something, jnp.where(present, scores, -jnp.inf), 0.0)
    own = jnp.where(jnp.eye(num_modalities, dtype=bool)[:, :, None], 0.0, -jnp.inf)
    log_weights = jax.nn.log_softmax(jnp.where(present[None], own, mixture[:, None]), axis=0)
    # [K, B, D] -> [K, M, B, D]: every decoder may read every component.
    repeat = lambda leaf: jnp.repeat(leaf[:, None], num_modalities, axis=1)
    return with_sources(LatentMixture(jax.tree.map(repeat, components), log_weights), identifiers[:, None])


def posterior_of_all(posteriors: DiagonalGaussian, present: Array) -> DiagonalGaussian:
    """Return the posterior given all observed modalities, from those given one modality each, by Bayes' rule.

    If q_m is the posterior given x_m alone, the modalities are independent given z, and z has the prior p = N(0, I),
    the posterior given all n observed ones is proportional to the product of the q_m divided by p^(n - 1). Its
    precision is the sum of theirs minus n - 1. Real posteriors are approximations, and may be wider than p; the
    precision is therefore not below that of the most precise of them.

    Args:
      posteriors: [M, B, D].
      present: [M, B] bool.

    Returns:
      [B, D]; N(0, I) where nothing is observed.
    """
    posteriors = where_present(present, posteriors)
    precisions = jnp.where(present[..., None], jnp.exp(-posteriors.log_variance), 0.0)
    count = jnp.sum(present, axis=0)[..., None]
    total = jnp.sum(precisions, axis=0)
    precision = jnp.maximum(total - (count - 1.0), jnp.max(precisions, axis=0))
    precision = jnp.where(count > 0, precision, 1.0)
    return DiagonalGaussian(jnp.sum(precisions * posteriors.mean, axis=0) / precision, -jnp.log(precision))


def with_sources(mixture: LatentMixture, sources: Array) -> LatentMixture:
    """Return the mixture with these sources of its components, [K, M or 1] uint32, the same for all examples."""
    return mixture._replace(sources=jnp.broadcast_to(sources[..., None], mixture.log_weights.shape))


def sources_of(mixture: LatentMixture) -> Array:
    """Return the sources of the components, by default their positions: [K, M or 1, B] uint32."""
    if mixture.sources is not None:
        return mixture.sources
    numbers = jnp.arange(len(mixture.log_weights), dtype=jnp.uint32)
    return jnp.broadcast_to(numbers[:, None, None], mixture.log_weights.shape)


def draw(key: Array, index: Array, mixture: LatentMixture, options) -> Array:
    """Draw once per example: choose a component for every decoder by its weight, then sample a latent from it.

    Choice and noise are keyed by the example and the component's source. So decoders with the same weights choose
    the same source, decoders that read the same source read the same latent, and the draw depends neither on the
    order of the modalities nor on absent ones.

    Args:
      key: of the draw.
      index: [B], of the examples. A draw does not depend on the other examples of the batch.
      mixture: [K, M or 1, B, D].
      options: of the method; unused here, but read by methods whose latents are not Gaussian.

    Returns:
      [M or 1, B, D].
    """

    def draw_example(key, components, log_weights, sources):
        choice_key, noise_key = jax.random.split(key)
        chosen = choose(choice_key, log_weights, sources)
        pick = lambda leaf: jnp.take_along_axis(leaf, chosen[None, :, None], axis=0)[0]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(noise_key, pick(sources[..., None])[:, 0])
        return sample(keys, jax.tree.map(pick, components))

    parts = example_keys(key, index), mixture.components, mixture.log_weights, sources_of(mixture)
    return jax.vmap(draw_example, in_axes=(0, 2, 2, 2), out_axes=1)(*parts)


def choose(key: Array, log_weights: Array, sources: Array) -> Array:
    """Choose a component for every decoder of one example by its weight: [K, M or 1], [K, M or 1] -> [M or 1].

    Takes the component with the highest sum of log-weight and Gumbel noise, which is drawn once per source.
    """
    keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (None, 0))(key, sources)
    gumbel = lambda one: jax.random.gumbel(one, (), log_weights.dtype)
    return jnp.argmax(log_weights + jax.vmap(jax.vmap(gumbel))(keys), axis=0)


def standard_normal_prior(functions: Functions, options, num_examples: int, latent_dim: int) -> LatentMixture:
    """Return N(0, I): ``prior`` of methods with a single shared latent. Components [1, 1, B, D]."""
    zeros = jnp.zeros((num_examples, latent_dim))
    return single_latent(DiagonalGaussian(zeros, zeros))


def standard_normal_log_ratio(mixture: LatentMixture, z: Array, functions: Functions, options) -> tuple[Array, Array]:
    """Return ``log_prior_ratio`` of methods with a single shared latent and prior N(0, I): [B] nats, and zeros [B]."""
    log_prior = gaussian_log_density(standard_normal_like(DiagonalGaussian(z, z)), z)
    shared = log_prior - mixture_log_density(mixture.components, z, mixture.log_weights)
    return shared[0], jnp.zeros_like(shared)


def single_latent(q: DiagonalGaussian) -> LatentMixture:
    """Return a joint Gaussian posterior, [B, D], as the mixture [1, 1, B, D] that all decoders read."""
    components = jax.tree.map(lambda leaf: leaf[None, None], q)
    return LatentMixture(components, jnp.zeros(components.mean.shape[:-1], q.mean.dtype))
