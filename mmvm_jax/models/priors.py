"""Examples out of nothing: latents drawn from the method's prior, or from one fitted to what training left."""

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
    """Draws from the aggregate posterior: one from the posterior of each observed modality of each training example.

    Only 10,000 of these posteriors, chosen at random, are drawn from where there are more, and only the examples that
    have one of them are encoded.

    Args:
      trained: the model and its method.
      train: the training split.
      batch_size: at a time.
      seed: of the choice and of the draws.

    Returns:
      [P, D], of all modalities together.
    """
    rows, examples = np.nonzero(train.present)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MAX_POINTS])
    needed, places = np.unique(examples[chosen], return_inverse=True)

    def draw(params, batch, key):
        functions, batch = trained.model.bind(params), trained.model.prepare(batch)
        posteriors, everything = functions.encode(batch.inputs), jnp.ones(len(functions.names), bool)
        return jnp.moveaxis(trained.translate(functions, posteriors, batch, everything, key), 0, 1)

    split, key = select_examples(train, needed), jax.random.key(seed)
    draws = map_split(devices.spread(draw, reduced=False), trained.params, split, batch_size, key)
    return draws[places, rows[chosen]]


@threadpool_limits.wrap(limits=1)  # threads that wait for each other take several times as long
def fit_prior(draws: np.ndarray, num_components: int, seed: int) -> GaussianMixturePrior:
    """Fits a mixture to draws from the aggregate posterior.

    Their means would not do: a mixture of them is narrower than the posteriors that the decoders learned to read.

    Args:
      draws: [P, D], from ``draw_aggregate``.
      num_components: K, at most; never more than there are different draws.
      seed: of the first guess.
    """
    # Only now, so that training starts without waiting for scikit-learn.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = draws.astype(np.float64)
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
    mixture = _prior(trained, functions, len(index))
    if mixture is None:
        if fitted is None:
            raise ValueError(f"method {trained.method.name!r} has no prior of its own: one must be fitted")
        mixture = _as_mixture(fitted, len(index))
    z = trained.method.draw(key, index, mixture)
    return jnp.broadcast_to(z, (len(functions.names), *z.shape[1:]))


def _prior(trained: Trained, functions: BoundModel, num_examples: int) -> LatentMixture | None:
    return trained.method.prior(functions, num_examples=num_examples, latent_dim=trained.model.latent_dim)


def _as_mixture(fitted: GaussianMixturePrior, num_examples: int) -> LatentMixture:
    """One latent for all decoders: components [K, 1, B, D]."""
    repeat = lambda leaf: jnp.repeat(jnp.asarray(leaf, jnp.result_type(float))[:, None, None], num_examples, axis=2)
    components = DiagonalGaussian(repeat(fitted.means), repeat(np.log(fitted.variances)))
    return LatentMixture(components, repeat(np.log(fitted.weights)))
