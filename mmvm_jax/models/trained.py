"""A trained model, and functions that apply it to a whole split."""

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
    """A model, its method and the trained parameters."""

    model: Model
    method: Method
    params: dict

    def __reduce__(self):
        """Pickle the method by its name, since modules and compiled functions cannot be pickled."""
        return _rebuild, (self.model, self.method.name, self.method.options, jax.device_get(self.params))

    def translate(
        self, functions: BoundModel, posteriors: DiagonalGaussian, batch: Batch, sources: Array, key: Array
    ) -> Array:
        """Draw the latents of all decoders, given the observed modalities among ``sources``.

        Args:
          functions: the model with its parameters.
          posteriors: of all modalities, [M, B, D].
          batch: provides the mask and the examples' indices.
          sources: [M] bool.
          key: of the draw.

        Returns:
          z [M, B, D], row m for decoder m.
        """
        mixture = self.method.posterior(posteriors, batch.present & sources[:, None], functions)
        z = self.method.draw(key, batch.index, mixture)
        return jnp.broadcast_to(z, posteriors.mean.shape)

    @functools.cached_property
    def encoder(self):
        """Function (params, batch) -> own posteriors [B, M, D], and the mean of each decoder's latent [B, M or 1, D].

        It runs on all devices and is compiled once for all splits.
        """

        def encode(params, batch):
            functions, batch = self.model.bind(params), self.model.prepare(batch)
            posteriors = functions.encode(batch.inputs)
            mixture = self.method.posterior(posteriors, batch.present, functions)
            joint = weighted_mean(mixture, mixture.components.mean)
            return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), (posteriors, joint))

        return devices.data_parallel(encode, reduced=False)


def _rebuild(model: Model, method: str, options, params: dict) -> Trained:
    return Trained(model, Method(method, METHODS[method], options), params)


def weighted_mean(mixture: LatentMixture, values: Array) -> Array:
    """Return the weighted mean over the components: [K, M or 1, B, D] -> [M or 1, B, D]."""
    return jnp.sum(jnp.exp(mixture.log_weights)[..., None] * values, axis=0)


class Encoded(NamedTuple):
    """An encoded split. The posteriors of absent entries are meaningless."""

    posteriors: DiagonalGaussian  # [M, N, D], each given its own modality
    joint: np.ndarray  # [M or 1, N, D] mean of each decoder's latent, given all observed modalities
    present: np.ndarray  # [M, N] bool
    labels: np.ndarray  # [N] classes, or [N, C] binary; -1 where unknown


def map_split(function, state, split: Split, batch_size: int, *rest):
    """Apply ``function(state, batch, *rest)`` to a whole split, in order, on all devices.

    Args:
      function: returns arrays whose first axis is that of the examples.
      state: shared by all devices.
      split: N examples.
      batch_size: rounded down to a multiple of the number of devices, but at least one example per device.
      rest: further arguments, shared by all devices.

    Returns:
      The function's outputs on the host, [N, ...].
    """
    outputs, batch_size = [], devices.largest_batch_size(batch_size, batch_size)
    for batch, count in evaluation_batches(split, batch_size, processes.share(batch_size)):
        outputs.append(jax.tree.map(lambda leaf: leaf[:count], function(state, batch, *rest)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)


def encode_split(trained: Trained, split: Split, batch_size: int) -> Encoded:
    """Encode a whole split, ``batch_size`` examples at a time."""
    outputs = map_split(trained.encoder, trained.params, split, batch_size)
    posteriors, joint = jax.tree.map(lambda leaf: np.moveaxis(leaf, 1, 0), outputs)
    return Encoded(posteriors, joint, split.present, split.labels)
