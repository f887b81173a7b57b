"""The optimiser, and the numbers of a step that runs of one program may differ in."""

import jax
import jax.numpy as jnp
import optax

from mmvm_jax.objectives.method import final_hyper
from mmvm_jax.types import Array

_SPIKE = 10.0  # times the usual norm: a longer gradient is shortened to this


def make_optimizer(config) -> optax.GradientTransformation:
    """Adam without its learning rate, which is a hyper-parameter of the step, on gradients without spikes.

    A gradient whose norm exceeds ten times the usual one is shortened to that; all others are unchanged. The usual norm
    is the root of the sum of Adam's second moments, so the state is Adam's. Without this a single outlier would enlarge
    the second moments, and thereby stop learning for thousands of steps.
    """
    settings = config.optimizer
    adam = optax.scale_by_adam(settings.b1, settings.b2, settings.eps)

    def update(gradients, state, params=None):
        seen = 1.0 - settings.b2 ** state.count.astype(float)  # 0 before the first step
        usual = jnp.sqrt(optax.tree.sum(state.nu) / jnp.where(state.count > 0, seen, 1.0))
        limit = jnp.where(state.count > 0, _SPIKE * usual, jnp.inf)
        norm = optax.tree.norm(gradients)
        is_spike = norm > limit
        shortened = jax.tree.map(lambda g: jnp.where(is_spike, g * (limit / norm), g), gradients)
        return adam.update(shortened, state, params)

    return optax.GradientTransformation(adam.init, update)


def hyper_parameters(config) -> dict[str, Array]:
    """The numbers that runs of one program may differ in: seed, learning rate, beta and what else the method has."""
    numbers = {"seed": jnp.uint32(config.seed), "learning_rate": jnp.asarray(config.optimizer.learning_rate, float)}
    return final_hyper(config.method) | numbers
