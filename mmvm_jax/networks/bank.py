"""A bank: M networks of one architecture, stored as one tree of stacked variables."""

import functools

import jax
import jax.numpy as jnp

from mmvm_jax.networks.formulations import many_runs
from mmvm_jax.networks.normalization import STATISTICS


def init_bank(module, keys, example_input):
    """Return the variables of M networks. Those of network m depend only on ``keys[m]``.

    Args:
      module: the linen module that all networks share.
      keys: [M] random keys.
      example_input: [N, ...], an input of one network.

    Returns:
      The module's variables, leaves [M, ...].
    """
    return jax.lax.map(lambda key: module.init(key, example_input), keys)


def apply_bank(module, variables, inputs):
    """Apply M networks, each to its own input.

    Args:
      module: the linen module that all networks share.
      variables: from ``init_bank``, leaves [M, ...].
      inputs: [M, N, ...].

    Returns:
      The module's outputs, leaves [M, N, ...].
    """
    return _chosen(inputs)(module, variables, inputs)


def train_bank(module, variables, inputs, training):
    """Apply M networks with running statistics in a training step.

    Args:
      module: the linen module that all networks share.
      variables: from ``init_bank``, leaves [M, ...].
      inputs: [M, N, ...].
      training: a ``normalization.Training``, leaves [M, N].

    Returns:
      The module's outputs, leaves [M, N, ...], and the updated collection of statistics, leaves [M, ...].
    """
    return _chosen(inputs)(module, variables, inputs, training, mutable=[STATISTICS])


def arrangement(backend: str, number: int) -> str:
    """Return how a bank of ``number`` networks runs on a backend: a key of ``APPLY``.

    On CPUs both take the same time within a few per cent, but "batched" compiles only one network for any M. A single
    network is not batched, because XLA transposes the weights in memory for a batch of one matrix. Where plain
    convolutions are used (``formulations.formulation``), networks are not batched, since that is slow over kernels.
    """
    has_products = backend == "cpu" or (backend == "gpu" and many_runs())
    return "batched" if has_products and number > 1 else "unrolled"


def _chosen(inputs):
    return APPLY[arrangement(jax.default_backend(), inputs.shape[0])]


def _batched(module, *arguments, **options):
    return jax.vmap(functools.partial(module.apply, **options))(*arguments)


def _unrolled(module, variables, inputs, *rest, **options):
    pick = lambda m: jax.tree.map(lambda leaf: leaf[m], (variables, inputs, *rest))
    outputs = [module.apply(*pick(m), **options) for m in range(inputs.shape[0])]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


APPLY = {"batched": _batched, "unrolled": _unrolled}
