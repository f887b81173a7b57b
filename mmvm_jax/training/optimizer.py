"""The optimiser, and the numbers of a step that runs of one program may differ in."""

import jax.numpy as jnp
import optax

from mmvm_jax.objectives.method import final_hyper
from mmvm_jax.types import Array


def make_optimizer(config) -> optax.GradientTransformation:
    """Adam without its learning rate, which is a hyper-parameter of the step."""
    return optax.scale_by_adam(config.optimizer.b1, config.optimizer.b2, config.optimizer.eps)


def hyper_parameters(config) -> dict[str, Array]:
    """The numbers that runs of one program may differ in: seed, learning rate, beta and what else the method has."""
    numbers = {"seed": jnp.uint32(config.seed), "learning_rate": jnp.asarray(config.optimizer.learning_rate, float)}
    return final_hyper(config.method) | numbers
