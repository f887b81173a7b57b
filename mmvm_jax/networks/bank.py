"""A bank of M networks of one architecture, held as one tree of stacked variables."""

import jax
import jax.numpy as jnp


def init_bank(module, keys, example_input):
    """Variables of M networks; those of network m depend on ``keys[m]`` alone.

    Args:
      module: the linen module that all networks share.
      keys: [M] random keys.
      example_input: [N, ...] an input of one network.

    Returns:
      The module's variables, leaves [M, ...].
    """
    return jax.lax.map(lambda key: module.init(key, example_input), keys)


def apply_bank(module, variables, inputs):
    """Outputs of M networks, each on its own input.

    Args:
      module: the linen module that all networks share.
      variables: from ``init_bank``, leaves [M, ...].
      inputs: [M, N, ...].

    Returns:
      The module's outputs, leaves [M, N, ...].
    """
    return APPLY[arrangement(jax.default_backend())](module, variables, inputs)


def arrangement(backend):
    """How the networks of a bank run on a backend: a key of ``APPLY``."""
    return "batched" if backend == "cpu" else "unrolled"


def _batched(module, variables, inputs):
    return jax.vmap(module.apply)(variables, inputs)


def _unrolled(module, variables, inputs):
    networks = range(inputs.shape[0])
    outputs = [module.apply(jax.tree.map(lambda leaf: leaf[m], variables), inputs[m]) for m in networks]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def _scanned(module, variables, inputs):
    return jax.lax.map(lambda one: module.apply(*one), (variables, inputs))


APPLY = {"batched": _batched, "unrolled": _unrolled, "scanned": _scanned}
