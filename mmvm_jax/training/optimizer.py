"""The optimiser, and the hyper-parameters that are arguments of a step."""

import jax.numpy as jnp
import optax

from mmvm_jax.objectives.method import final_hyper
from mmvm_jax.types import Array


def make_optimizer(config) -> optax.GradientTransformation:
    """Return Adam without its learning rate, which is an argument of the step."""
    return optax.scale_by_adam(config.optimizer.b1, config.optimizer.b2, config.optimizer.eps)


def hyper_parameters(config) -> dict[str, Array]:
    """Return the arguments of a step: seed, learning rate, beta and the method's own hyper-parameters.

    Runs that share a program may differ in them.
    """
    numbers = {"seed": jnp.uint32(config.seed), "learning_rate": jnp.asarray(config.optimizer.learning_rate, float)}
    return final_hyper(config.method) | numbers
