"""The objective on held-out examples, measured during training."""

from collections.abc import Callable

import jax
import numpy as np

from mmvm_jax.data.batches import some_rows
from mmvm_jax.data.dataset import Split, select_examples
from mmvm_jax.models.model import Model
from mmvm_jax.models.trained import map_split
from mmvm_jax.objectives.method import Method, hyper_at
from mmvm_jax.runtime import devices

_BATCHES = 10  # few, so that they cost little training time


def held_out_objective(
    config, model: Model, method: Method, split: Split, total_steps: int, annealed: bool = True
) -> Callable:
    """Return a function that measures the objective on ten fixed batches of ``split``, always with the same noise.

    Args:
      config: configuration of the run.
      model: the model.
      method: the method.
      split: the held-out examples.
      total_steps: number of steps of the whole training.
      annealed: whether hyper-parameters follow their schedules, or have their final values at every step.

    Returns:
      (state, hyper) -> {name: nats per example}: the loss and its terms in evaluation mode.
    """
    batch_size = config.train.batch_size // config.train.accumulate
    chosen = np.zeros(len(split.labels), bool)
    chosen[some_rows(len(chosen), _BATCHES * config.train.batch_size)] = True
    some = select_examples(split, chosen)

    def objective(state, batch, hyper):
        key = jax.random.key(hyper["seed"])
        moving = hyper_at(config.method, hyper, state.step, total_steps) if annealed else hyper
        output = method.loss(key, model.prepare(batch), model.bind(state.variables), moving)
        return {"loss": output.loss, **output.terms}

    run = devices.data_parallel(objective, reduced=False)

    def measure(state, hyper: dict) -> dict[str, float]:
        values = map_split(run, state, some, batch_size, hyper)
        return {name: float(np.mean(numbers)) for name, numbers in values.items()}

    return measure
