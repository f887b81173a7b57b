"""Layers that behave differently in training: batch normalisation and dropout, blind to absent inputs.

A network with such layers is called with its input and a ``Training`` in training, with its input alone in
evaluation. The model knows it by its running statistics, so dropout comes only with batch normalisation.
"""

import zlib
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmvm_jax.types import Array

STATISTICS = "batch_stats"  # the collection that holds running statistics


@flax.struct.dataclass
class Training:
    """What is known in training of the N inputs of a network.

    Attributes:
      present: [N] bool; the absent take no part in batch statistics.
      keys: [N] random keys of the noise; none depends on the inputs beside its own.
      total: adds up over all devices what each of them has.
    """

    present: Array
    keys: Array
    total: Callable = flax.struct.field(pytree_node=False)


class BatchNorm(nn.Module):
    """Every channel brought to mean 0 and variance 1, then scaled and shifted: [N, ..., C] -> [N, ..., C].

    Mean and variance are those of the observed inputs on all devices in training, running ones in
    evaluation, and never computed in less than float32. A batch with nothing observed leaves the running ones
    as they are; an absent input is normalised to 0. Momentum, epsilon and the unbiased running variance are
    PyTorch's defaults.

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
    """Number of observed values of a channel, their mean and their variance: [], [C], [C].

    Args:
      x: [N, ..., C].
      mask: [N, ..., 1], the axes between of size 1; bool.
      total: adds up over all devices. Sums and counts leave a device, never means: masks differ between
      devices.
    """
    axes = tuple(range(x.ndim - 1))
    values_each = x[0, ..., 0].size
    count = total(jnp.sum(mask).astype(x.dtype)) * values_each
    mean_of = lambda values: total(jnp.sum(jnp.where(mask, values, 0.0), axis=axes)) / jnp.maximum(count, 1.0)
    mean = mean_of(x)
    return count, mean, mean_of(jnp.square(x - mean.reshape((1,) * len(axes) + mean.shape)))


class Dropout(nn.Module):
    """Each value of an input 0 with probability ``rate``, else 1 / (1 - rate) of itself, in training.

    [N, ..., C] -> [N, ..., C]. With ``channels`` whole channels fall out together. The noise depends on the
    keys and on the place of the layer in its network.

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
