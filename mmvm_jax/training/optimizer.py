"""The optimiser, its learning-rate schedule, and the hyper-parameters that are arguments of a step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mmvm_jax.objectives.method import final_hyper
from mmvm_jax.types import Array

_DECAYED = ("kernel", "embedding")  # weight decay leaves biases, normalisation and parameters of methods alone

# Each without its learning rate, which is an argument of the step.
OPTIMIZERS: dict[str, Callable] = {
    "adam": lambda config: optax.scale_by_adam(config.b1, config.b2, config.eps),
    "amsgrad": lambda config: optax.scale_by_amsgrad(config.b1, config.b2, config.eps),
    "adamw": lambda config: optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_is_decayed),
    ),
    "sgd": lambda config: optax.trace(config.momentum),
}

# (fields of the schedule, steps of the warm-up, steps of the training) -> factor of the learning rate, by step.
SCHEDULES: dict[str, Callable] = {
    "constant": lambda fields, warmup, total: optax.linear_schedule(0.0, 1.0, warmup) if warmup else lambda step: 1.0,
    "cosine": lambda fields, warmup, total: optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, total, fields.end),
    "exponential": lambda fields, warmup, total: optax.warmup_exponential_decay_schedule(
        0.0, 1.0, warmup, max(total - warmup, 1), fields.end, end_value=fields.end
    ),
}
SCHEDULES["plateau"] = SCHEDULES["constant"]  # its state stands in the optimiser's


def make_optimizer(config) -> optax.GradientTransformationExtraArgs:
    """Return the optimiser of ``config.optimizer``, to be applied to clipped gradients.

    Its updates lack the learning rate. ``update`` takes the loss as ``value``, for the schedule "plateau".
    """
    optimizer = OPTIMIZERS[config.optimizer.name](config.optimizer)
    if config.optimizer.schedule.name == "plateau":
        fields = config.optimizer.schedule
        plateau = optax.contrib.reduce_on_plateau(fields.factor, fields.patience, accumulation_size=fields.every)
        optimizer = optax.chain(optimizer, plateau)
    return optax.with_extra_args_support(optimizer)


def clip(gradients, max_norm: float):
    """Scale gradients down to a global norm of ``max_norm``; 0 for no limit."""
    return optax.clip_by_global_norm(max_norm).update(gradients, optax.EmptyState())[0] if max_norm else gradients


def learning_rate_factor(config, step: Array, total_steps: int) -> Array | float:
    """Return the factor of the learning rate at a step."""
    fields = config.optimizer.schedule
    return SCHEDULES[fields.name](fields, round(fields.warmup * total_steps), total_steps)(step)


def hyper_parameters(config) -> dict[str, Array]:
    """Return the arguments of a step: seed, learning rate, beta and the method's own hyper-parameters.

    Runs that share a program may differ in them.
    """
    numbers = {"seed": jnp.uint32(config.seed), "learning_rate": jnp.asarray(config.optimizer.learning_rate, float)}
    return final_hyper(config.method) | numbers


def _is_decayed(params):
    """Return which parameters weight decay shrinks, as a tree of bools."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: getattr(path[-1], "key", "") in _DECAYED, params)
