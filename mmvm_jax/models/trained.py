"""A trained model and the two passes over a split that the metrics are computed from."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.batches import evaluation_batches
from mmvm_jax.data.dataset import Split
from mmvm_jax.models.model import BoundModel, Model
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.method import Method
from mmvm_jax.runtime import devices, processes
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model, its method and the parameters that training ended with."""

    model: Model
    method: Method
    params: dict

    def __reduce__(self):
        """Pickles the method by its name, as modules and compiled functions cannot be pickled."""
        return _rebuild, (self.model, self.method.name, self.method.options, jax.device_get(self.params))

    def translate(
        self, functions: BoundModel, posteriors: DiagonalGaussian, batch: Batch, sources: Array, key: Array
    ) -> Array:
        """One draw of the latents that the decoders read, given the observed among ``sources``.

        Args:
          functions: the model with its parameters.
          posteriors: of all modalities, [M, B, D].
          batch: read for what is present, and for the examples' indices.
          sources: [M] bool.
          key: of the draw.

        Returns:
          z [M, B, D].
        """
        mixture = self.method.posterior(posteriors, batch.present & sources[:, None], functions)
        z = self.method.draw(key, batch.index, mixture)
        return jnp.broadcast_to(z, posteriors.mean.shape)

    @functools.cached_property
    def encoder(self):
        """(params, batch) -> own posteriors [B, M, D], and the mean of the latents that decoders read [B, M or 1, D].

        On all devices, compiled once for all splits.
        """

        def encode(params, batch):
            functions, batch = self.model.bind(params), self.model.prepare(batch)
            posteriors = functions.encode(batch.inputs)
            mixture = self.method.posterior(posteriors, batch.present, functions)
            joint = weighted_mean(mixture, mixture.components.mean)
            return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), (posteriors, joint))

        return devices.spread(encode, reduced=False)


def _rebuild(model: Model, method: str, options, params: dict) -> Trained:
    return Trained(model, Method(method, METHODS[method], options), params)


def weighted_mean(mixture: LatentMixture, values: Array) -> Array:
    """The mean over the components: [K, M or 1, B, D] -> [M or 1, B, D]."""
    return jnp.sum(jnp.exp(mixture.log_weights)[..., None] * values, axis=0)


class Encoded(NamedTuple):
    """A split as the encoders see it; what the posterior of an absent entry holds means nothing."""

    posteriors: DiagonalGaussian  # [M, N, D]
    joint: np.ndarray  # [M or 1, N, D] mean of the latent that each decoder reads, given all that was observed
    present: np.ndarray  # [M, N] bool
    labels: np.ndarray  # [N] classes, or [N, C] binary; -1 where unknown


def map_split(function, state, split: Split, batch_size: int, *rest):
    """Applies ``function(state, batch, *rest)`` to a whole split, in order, on all devices.

    Args:
      function: returns arrays whose first axis is the examples'.
      state: what all devices share.
      split: N examples.
      batch_size: at a time; the next number below it that the devices divide, or one a device.
      rest: further arguments that all devices share.

    Returns:
      The function's outputs on the host, [N, ...].
    """
    outputs, batch_size = [], devices.largest_batch_size(batch_size, batch_size)
    for batch, count in evaluation_batches(split, batch_size, processes.share(batch_size)):
        outputs.append(jax.tree.map(lambda leaf: leaf[:count], function(state, batch, *rest)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)


def encode_split(trained: Trained, split: Split, batch_size: int) -> tuple[DiagonalGaussian, np.ndarray]:
    """Posteriors of a split, and the point representation given all that was observed.

    Returns:
      Own posteriors [M, N, D] (what an absent entry holds means nothing), and the mean of the latent that each
      decoder reads [M or 1, N, D].
    """
    outputs = map_split(trained.encoder, trained.params, split, batch_size)
    return jax.tree.map(lambda leaf: np.moveaxis(leaf, 1, 0), outputs)
