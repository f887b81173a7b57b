"""Schedules of hyper-parameters."""

import jax.numpy as jnp

from mmvm_jax.types import Array

SHAPES = ("constant", "linear", "cosine", "exponential")
# The exponential schedule decays to this share of the distance, and then jumps to the final value.
_EXPONENTIAL_REST = 1e-3


def progress_at(schedule, step: Array, num_steps: int) -> Array:
    """Return the share of an annealing that has passed at a step, >= 0.

    Args:
      schedule: the fields ``fraction``, ``steps`` and ``cycles`` of a schedule.
      step: current step of training.
      num_steps: number of steps of the whole training.
    """
    period = num_steps / schedule.cycles
    length = schedule.steps or schedule.fraction * period
    return (step if schedule.cycles == 1 else step % period) / length


def anneal(shape: str, start: Array | float, end: Array | float, progress: Array) -> Array:
    """Return the value between ``start`` and ``end`` at ``progress``.

    Args:
      shape: "constant" (always ``end``), "linear", "cosine" or "exponential" (the distance to ``end`` decays
        by a constant factor per step, down to a thousandth).
      start: value at progress 0.
      end: value from progress 1 on.
      progress: share of the annealing that has passed, >= 0; may exceed 1.

    Raises:
      ValueError: unknown shape.
    """
    progress = jnp.clip(progress, 0.0, 1.0)
    if shape == "constant":
        distance = jnp.zeros_like(progress)
    elif shape == "linear":
        distance = 1.0 - progress
    elif shape == "cosine":
        distance = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    elif shape == "exponential":
        distance = jnp.where(progress < 1.0, _EXPONENTIAL_REST**progress, 0.0)
    else:
        raise ValueError(f"schedule is {shape!r}; allowed: {', '.join(SHAPES)}")
    return end + (start - end) * distance
