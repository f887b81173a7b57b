"""Examples out of nothing: latents drawn from the method's prior, or from one fitted to what training left."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from mmvm_jax.data.dataset import Split
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


@threadpool_limits.wrap(limits=1)  # threads that wait for each other take several times as long
def fit_prior(train_means: np.ndarray, present: np.ndarray, num_components: int, seed: int) -> GaussianMixturePrior:
    """Fits a mixture to the training posteriors' means, those of all modalities together.

    Args:
      train_means: [M, N, D].
      present: [M, N] bool; what an absent entry holds is not read.
      num_components: K, at most; never more than there are different means.
      seed: of the first guess, and of which 10,000 means are read where there are more.
    """
    # Only now, so that training starts without waiting for scikit-learn.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = train_means[present].astype(np.float64)
    if len(points) > _MAX_POINTS:
        points = np.random.default_rng(seed).permutation(points)[:_MAX_POINTS]
    count = min(num_components, len(np.unique(points, axis=0)))
    # A point twice over changes no maximum-likelihood fit, and scikit-learn wants two.
    points = points if len(points) > 1 else np.repeat(points, 2, axis=0)
    mixture = GaussianMixture(count, covariance_type="diag", max_iter=_MAX_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        # The likelihood hardly moves any more; where exactly it stops does not matter to the samples.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(points)
    return GaussianMixturePrior(mixture.weights_, mixture.means_, mixture.covariances_)


def has_prior(trained: Trained) -> bool:
    """Whether the method has a prior of its own; else one must be fitted."""
    return jax.eval_shape(lambda params: _prior(trained, trained.model.bind(params), 1), trained.params) is not None


def sample_latents(trained: Trained, fitted: GaussianMixturePrior | None, num_examples: int, key: Array) -> Array:
    """Unconditional latents, which do not depend on how many of them are drawn.

    Args:
      trained: the model and its method.
      fitted: stands for the prior where the method has none; not read elsewhere.
      num_examples: N.
      key: of the draw.

    Returns:
      z [M, N, D], read by decoder m; one and the same for all decoders where the method has one latent, and
      where the prior was fitted.
    """
    draw = lambda functions, index, key: jnp.moveaxis(draw_latents(trained, functions, fitted, index, key), 0, 1)
    return jnp.moveaxis(jnp.asarray(map_unconditional(draw, trained, num_examples, _BATCH_SIZE, key)), 1, 0)


def map_unconditional(function, trained: Trained, num_examples: int, batch_size: int, key: Array):
    """``function(functions, index [B], key)`` of the numbers of examples that do not exist yet, on all devices.

    Returns:
      The function's outputs, whose first axis is that of the examples, on the host: [N, ...].
    """
    present = np.ones((len(trained.model.names), num_examples), bool)
    numbers = Split({}, present, np.full(num_examples, -1, np.int32))
    run = lambda params, batch, key: function(trained.model.bind(params), batch.index, key)
    batch_size = devices.largest_batch_size(batch_size, num_examples)
    return map_split(devices.spread(run, reduced=False), trained.params, numbers, batch_size, key)


def draw_latents(
    trained: Trained, functions: BoundModel, fitted: GaussianMixturePrior | None, index: Array, key: Array
) -> Array:
    """Unconditional latents of the examples with these numbers: [B] -> [M, B, D].

    Raises:
      ValueError: neither has the method a prior, nor was one fitted.
    """
    prior = _prior(trained, functions, len(index))
    if prior is None and fitted is None:
        raise ValueError(f"method {trained.method.name!r} has no prior of its own: one must be fitted")
    mixture = _as_mixture(fitted, len(index)) if prior is None else prior
    z = trained.method.draw(key, index, mixture)
    return jnp.broadcast_to(z, (len(functions.names), *z.shape[1:]))


def _prior(trained: Trained, functions: BoundModel, num_examples: int) -> LatentMixture | None:
    return trained.method.prior(functions, num_examples=num_examples, latent_dim=trained.model.latent_dim)


def _as_mixture(fitted: GaussianMixturePrior, num_examples: int) -> LatentMixture:
    """One latent for all decoders: components [K, 1, B, D]."""
    repeat = lambda leaf: jnp.repeat(jnp.asarray(leaf, jnp.result_type(float))[:, None, None], num_examples, axis=2)
    components = DiagonalGaussian(repeat(fitted.means), repeat(np.log(fitted.variances)))
    return LatentMixture(components, repeat(np.log(fitted.weights)))
