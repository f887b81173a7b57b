"""Layers that differ between training and evaluation: batch normalisation and dropout, which ignore absent inputs.

A network with such layers is called with its input and a ``Training`` during training, and with its input alone in
evaluation. The model recognises such a network by its running statistics, so a network with dropout must also have
batch normalisation.
"""

import dataclasses
import zlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmvm_jax.types import Array

STATISTICS = "batch_stats"  # name of the collection of running statistics


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Training:
    """Information about the N inputs of a network during training.

    Attributes:
      present: [N] bool; absent inputs do not enter batch statistics.
      keys: [N] random keys of the noise; a key depends only on its own input.
      total: sums over all devices.
    """

    present: Array
    keys: Array
    total: Callable = dataclasses.field(metadata={"static": True})


class BatchNorm(nn.Module):
    """Normalise every channel to mean 0 and variance 1, then scale and shift it: [N, ..., C] -> [N, ..., C].

    In training, mean and variance are those of the observed inputs on all devices; in evaluation, the running
    statistics. They are computed in float32 at least. A batch without observed inputs leaves the running statistics
    unchanged. An absent input is normalised to 0. Momentum, epsilon and the unbiased running variance are PyTorch's
    defaults.

    Source: Ioffe & Szegedy 2015, arXiv 1502.03167.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, training: Training | None = None) -> Array:
        dtype, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
        channels = x.shape[-1:]
        wide = lambda values: values.reshape((1,) * (x.ndim - 1) + channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running = [self.variable(STATISTICS, "mean", jnp.zeros, channels)]
        running.append(self.variable(STATISTICS, "variance", jnp.ones, channels))
        if training is None:
            mean, variance = (statistic.value for statistic in running)
            mask = jnp.ones((1,) * x.ndim, bool)
        else:
            mask = training.present.reshape(-1, *(1,) * (x.ndim - 1))
            count, mean, variance = masked_moments(x, mask, training.total)
            unbiased = variance * count / jnp.maximum(count - 1.0, 1.0)
            for statistic, value in zip(running, (mean, unbiased)):
                moved = self.momentum * statistic.value + (1.0 - self.momentum) * jax.lax.stop_gradient(value)
                statistic.value = jnp.where(count > 0, moved, statistic.value)
        normalised = (x - wide(mean)) * jax.lax.rsqrt(wide(variance) + self.epsilon)
        return (jnp.where(mask, normalised, 0.0) * wide(scale) + wide(bias)).astype(dtype)


def masked_moments(x: Array, mask: Array, total: Callable) -> tuple[Array, Array, Array]:
    """Return the number of observed values per channel, their mean and their variance: [], [C], [C].

    Args:
      x: [N, ..., C].
      mask: [N, 1, ..., 1] bool.
      total: sums over all devices. It is applied to sums and counts, not to means, because masks differ between
        devices.
    """
    axes = tuple(range(x.ndim - 1))
    values_each = x[0, ..., 0].size
    count = total(jnp.sum(mask).astype(x.dtype)) * values_each
    mean_of = lambda values: total(jnp.sum(jnp.where(mask, values, 0.0), axis=axes)) / jnp.maximum(count, 1.0)
    mean = mean_of(x)
    return count, mean, mean_of(jnp.square(x - mean.reshape((1,) * len(axes) + mean.shape)))


class Dropout(nn.Module):
    """In training, set each value to 0 with probability ``rate``, and multiply the others by 1 / (1 - rate).

    [N, ..., C] -> [N, ..., C]. With ``channels``, whole channels are set to 0 together. The noise depends on the keys
    and on the position of the layer in its network.

    Source: Srivastava et al. 2014, JMLR 15.
    """

    rate: float = 0.5
    channels: bool = False

    @nn.compact
    def __call__(self, x: Array, training: Training | None = None) -> Array:
        if training is None:
            return x
        place = zlib.crc32("/".join(self.path).encode())
        shape = (1,) * (x.ndim - 2) + x.shape[-1:] if self.channels else x.shape[1:]
        draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, place), 1.0 - self.rate, shape)
        return jnp.where(jax.vmap(draw)(training.keys), x / (1.0 - self.rate), 0.0)
