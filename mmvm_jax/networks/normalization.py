"""Layers that behave differently in training: batch normalisation and dropout, blind to absent inputs.

A network with such layers is called with its input and a ``Training`` in training, with its input alone in
evaluation. Only networks with batch statistics may have dropout: by them the model tells which to call so.
"""

from typing import Callable
import zlib

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmvm_jax.types import Array

STATISTICS = "batch_stats"  # the collection of running statistics


@flax.struct.dataclass
class Training:
    """What is known in training of the N inputs of a network.

    Attributes:
      present: [N] bool; the absent take no part in batch statistics.
      keys: [N] random keys of the noise, which do not depend on the inputs beside.
      total: the sum over all devices of what each has.
    """

    present: Array
    keys: Array
    total: Callable = flax.struct.field(pytree_node=False)


class BatchNorm(nn.Module):
    """Every channel scaled to mean 0 and variance 1 over the observed inputs of all devices: [N, ..., C] -> same.

    In evaluation the running statistics serve instead, as they do in training where nothing is observed; then they
    stay as they are. Momentum, epsilon and the unbiased running variance are PyTorch's. Where an input is absent
    the normalised value is 0. The published networks' source: Ioffe & Szegedy 2015, arXiv 1502.03167.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, training: Training | None = None) -> Array:
        channels, wide = x.shape[-1], (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable(STATISTICS, "mean", jnp.zeros, channels)
        running_variance = self.variable(STATISTICS, "variance", jnp.ones, channels)
        mean, variance = running_mean.value, running_variance.value
        mask = jnp.ones((1,) * x.ndim, bool)
        if training is not None:
            mask = training.present.reshape(-1, *(1,) * (x.ndim - 1))
            count, mean, variance = _moments(x, mask, training.total)
            self._update(running_mean, mean, count, count)
            self._update(running_variance, variance * count / jnp.maximum(count - 1.0, 1.0), count)
            mean = jnp.where(count > 0, mean, running_mean.value)
        normalised = (x - mean.reshape(wide)) * jax.lax.rsqrt(variance.reshape(wide) + self.epsilon)
        return jnp.where(mask, normalised, 0.0) * scale.reshape(wide) + bias.reshape(wide)
