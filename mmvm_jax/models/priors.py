"""Unconditional latents, drawn from the method's prior or from a prior fitted to the training posteriors."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from mmvm_jax.data.dataset import Split, select_examples
from mmvm_jax.models.model import BoundModel
from mmvm_jax.models.trained import Trained, map_split
from mmvm_jax.runtime import devices
from mmvm_jax.types import Array, DiagonalGaussian, LatentMixture

_BATCH_SIZE = 500
_MAX_ITERATIONS = 50
_MAX_POINTS = 10_000


class GaussianMixturePrior(NamedTuple):
    """A mixture of Gaussians with diagonal covariances."""

    weights: np.ndarray  # [K]
    means: np.ndarray  # [K, D]
    variances: np.ndarray  # [K, D]


def draw_aggregate(trained: Trained, train: Split, batch_size: int, seed: int) -> np.ndarray:
    """Draw from the aggregate posterior: once from the posterior of each observed modality of each training example.

    If there are more than 10,000 of these posteriors, a random 10,000 are used, and only their examples are encoded.

    Args:
      trained: the model and its method.
      train: the training split.
      batch_size: number of examples encoded at a time.
      seed: of the random choice and of the draws.

    Returns:
      [P, D], the draws of all modalities.
    """
    rows, examples = np.nonzero(train.present)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MAX_POINTS])
    needed, places = np.unique(examples[chosen], return_inverse=True)

    def draw(params, batch, key):
        functions, batch = trained.model.bind(params), trained.model.prepare(batch)
        posteriors, everything = functions.encode(batch.inputs), jnp.ones(len(functions.names), bool)
        return jnp.moveaxis(trained.translate(functions, posteriors, batch, everything, key), 0, 1)

    split, key = select_examples(train, needed), jax.random.key(seed)
    draws = map_split(devices.data_parallel(draw, reduced=False), trained.params, split, batch_size, key)
    return draws[places, rows[chosen]]


@threadpool_limits.wrap(limits=1)  # with more threads, waiting for each other takes several times as long
def fit_prior(draws: np.ndarray, num_components: int, seed: int) -> GaussianMixturePrior:
    """Fit a Gaussian mixture to draws from the aggregate posterior.

    It is not fitted to the posteriors' means, since the result would be narrower than the posteriors with which the
    decoders were trained.

    Args:
      draws: [P, D], from ``draw_aggregate``.
      num_components: K, an upper limit; at most the number of distinct draws is used.
      seed: of the initialisation.
    """
    # Imported here so that training starts without waiting for scikit-learn.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = draws.astype(np.float64)
    count = min(num_components, len(np.unique(points, axis=0)))
    # scikit-learn requires two points; repeating a single one does not change the maximum-likelihood fit.
    points = points if len(points) > 1 else np.repeat(points, 2, axis=0)
    mixture = GaussianMixture(count, covariance_type="diag", max_iter=_MAX_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        # After the last iteration the likelihood changes little, which does not matter for the samples.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(points)
    return GaussianMixturePrior(mixture.weights_, mixture.means_, mixture.covariances_)


def has_prior(trained: Trained) -> bool:
    """Return whether the method has its own prior; otherwise a prior must be fitted."""
    return jax.eval_shape(lambda params: _prior(trained, trained.model.bind(params), 1), trained.params) is not None


def sample_latents(trained: Trained, fitted: GaussianMixturePrior | None, num_examples: int, key: Array) -> Array:
    """Draw unconditional latents. An example's latents do not depend on the number of examples.

    Args:
      trained: the model and its method.
      fitted: the prior to use if the method has none.
      num_examples: N.
      key: of the draws.

    Returns:
      z [M, N, D], row m for decoder m. All rows are equal if the method has a single shared latent or the prior was
      fitted.
    """
    draw = lambda functions, index, key: jnp.moveaxis(draw_latents(trained, functions, fitted, index, key), 0, 1)
    return jnp.moveaxis(jnp.asarray(map_unconditional(draw, trained, num_examples, _BATCH_SIZE, key)), 1, 0)


def map_unconditional(function, trained: Trained, num_examples: int, batch_size: int, key: Array):
    """Apply ``function(functions, index [B], key)`` to the indices of N examples without data, on all devices.

    Returns:
      The function's outputs on the host, with examples as their first axis: [N, ...].
    """
    present = np.ones((len(trained.model.names), num_examples), bool)
    numbers = Split({}, present, np.full(num_examples, -1, np.int32))
    run = lambda params, batch, key: function(trained.model.bind(params), batch.index, key)
    batch_size = devices.largest_batch_size(batch_size, num_examples)
    return map_split(devices.data_parallel(run, reduced=False), trained.params, numbers, batch_size, key)


def draw_latents(
    trained: Trained, functions: BoundModel, fitted: GaussianMixturePrior | None, index: Array, key: Array
) -> Array:
    """Draw unconditional latents for the examples with these indices: [B] -> [M, B, D].

    Raises:
      ValueError: the method has no prior, and no fitted prior is given.
    """
    mixture = _prior(trained, functions, len(index))
    if mixture is None:
        if fitted is None:
            raise ValueError(f"method {trained.method.name!r} has no prior of its own; fit one")
        mixture = _as_mixture(fitted, len(index))
    z = trained.method.draw(key, index, mixture)
    return jnp.broadcast_to(z, (len(functions.names), *z.shape[1:]))


def _prior(trained: Trained, functions: BoundModel, num_examples: int) -> LatentMixture | None:
    return trained.method.prior(functions, num_examples=num_examples, latent_dim=trained.model.latent_dim)


def _as_mixture(fitted: GaussianMixturePrior, num_examples: int) -> LatentMixture:
    """Return the fitted prior as one latent for all decoders: components [K, 1, B, D]."""
    repeat = lambda leaf: jnp.repeat(jnp.asarray(leaf, jnp.result_type(float))[:, None, None], num_examples, axis=2)
    components = DiagonalGaussian(repeat(fitted.means), repeat(np.log(fitted.variances)))
    return LatentMixture(components, repeat(np.log(fitted.weights)))
