"""Importance-weighted bounds on the log-likelihood of the test examples."""

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import Split
from mmvm_jax.distributions import importance_weighted_bound
from mmvm_jax.evaluation.means import mean_of_known, without_unknown
from mmvm_jax.models.trained import Trained, map_split
from mmvm_jax.runtime import devices


def likelihood(trained: Trained, split: Split, batch_size: int, num_samples: int, seed: int) -> dict[str, float]:
    """Return importance-weighted bounds on log-likelihoods (Burda et al. 2016, arXiv 1509.00519).

    Weights of the modalities are not applied. With z_s ~ q(z | x_A), the method's posterior given the modalities A, the
    bound on log p(x_B) is

        log mean_s p(x_B | z_s) p(z_s) / q(z_s | x_A)

    For ``joint``, A and B are all modalities. For ``conditional/<from>_to_<to>``, each is one modality. Papers call it
    log p(x_to | x_from) (Shi et al. 2019, arXiv 1911.03393, and later ones); it is a bound on log p(x_to) with samples
    from the posterior of x_from, and measures how well this posterior covers the latents that explain x_to. Private
    latents are those of B; if B is not in A, they are drawn as the method draws them for an absent modality.

    Args:
      trained: the model and its method.
      split: the examples. Each number uses the examples in which all its modalities are present.
      batch_size: a multiple of the number of devices.
      num_samples: S; 0 computes nothing.
      seed: seed of the samples.

    Returns:
      {"likelihood/...": nats per example}; empty for methods without a prior for the latents that decoders read.
    """
    if not num_samples or trained.method.log_prior_ratio is None:
        return {}
    names, present = trained.model.names, split.present
    sources = np.concatenate([np.ones((1, len(names)), bool), np.eye(len(names), dtype=bool)])
    run = devices.data_parallel(_make_bounds(trained, num_samples), reduced=False)
    bounds = map_split(run, trained.params, split, batch_size, jnp.asarray(sources), jax.random.key(seed))
    values = {"likelihood/joint": mean_of_known(bounds[present.all(axis=0), 0, 0])}
    for row, source in enumerate(names):
        for column, target in enumerate(names):
            if row != column:
                own = bounds[present[row] & present[column], 1 + row, 1 + column]
                values[f"likelihood/conditional/{source}_to_{target}"] = mean_of_known(own)
    return without_unknown(values)


def _make_bounds(trained: Trained, num_samples: int):
    """Return (params, batch, sources [R, M], key) -> bounds [B, R, 1 + M], for all modalities together and for each."""
    model, method = trained.model, trained.method
    weights = jnp.array([modality.weight for modality in model.modalities])[:, None]

    def bounds(params, batch, sources, key):
        batch, functions = model.prepare(batch), model.bind(params)
        posteriors = functions.encode(batch.inputs)

        def from_sources(members):
            mixture = method.posterior(posteriors, batch.present & members[:, None], functions)

            def log_weight(key):
                z = method.draw(key, batch.index, mixture)
                shared, private = method.log_prior_ratio(mixture, z, functions)
                each = functions.log_likelihood(batch, jnp.broadcast_to(z, posteriors.mean.shape)) / weights + private
                return jnp.concatenate([jnp.sum(each, axis=0, keepdims=True), each]) + shared[None]

            # One sample per example at a time, so that the memory of the decoders does not grow with S.
            log_weights = jax.lax.map(log_weight, jax.random.split(key, num_samples))
            return importance_weighted_bound(log_weights[None])

        return jnp.moveaxis(jax.lax.map(from_sources, sources), -1, 0)

    return bounds
