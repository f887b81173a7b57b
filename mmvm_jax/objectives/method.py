"""From ``config.method`` to a method: its module, its static options, and its hyper-parameters at any step."""

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax.numpy as jnp

from mmvm_jax.errors import unknown_name
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.annealing import anneal
from mmvm_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Method:
    """A method with its options filled in; the functions are those of ``mmvm_jax.objectives``."""

    name: str
    module: ModuleType
    options: Any
    init: Callable = dataclasses.field(init=False)
    loss: Callable = dataclasses.field(init=False)
    posterior: Callable = dataclasses.field(init=False)
    draw: Callable = dataclasses.field(init=False)
    prior: Callable = dataclasses.field(init=False)

    def __post_init__(self):
        for name in ("init", "loss", "posterior", "draw", "prior"):
            function = functools.partial(getattr(self.module, name), options=self.options)
            object.__setattr__(self, name, function)

    @property
    def is_gaussian(self) -> bool:
        """Whether encoders give the means and log-variances of Gaussians."""
        return getattr(self.options, "latent_distribution", "normal") == "normal"


def make_method(config_method) -> Method:
    """The method that ``config.method`` asks for.

    Raises:
      UserError: unknown name, or an option with a value that is not allowed.
    """
    if config_method.name not in METHODS:
        raise unknown_name("config.method.name", config_method.name, METHODS)
    module = METHODS[config_method.name]
    chosen = config_method[config_method.name]
    names = [field.name for field in dataclasses.fields(module.Options)]
    return Method(config_method.name, module, module.Options(**{name: chosen[name] for name in names}))


def hyper_at(config_method, hyper: dict[str, Array], step: Array, num_steps: int) -> dict[str, Array]:
    """The hyper-parameters at a step: those with an ``anneal_<name>`` in the configuration move.

    Args:
      config_method: ``config.method``; read for the shapes of the schedules.
      hyper: final values.
      step: of the training.
      num_steps: of the whole training.
    """
    chosen, values = config_method[config_method.name], dict(hyper)
    for name in METHODS[config_method.name].HYPERPARAMETERS:
        schedule = chosen.get(f"anneal_{name}")
        if schedule is not None:
            progress = step / (schedule.fraction * num_steps)
            values[name] = anneal(schedule.shape, schedule.start, hyper[name], progress)
    return values


def final_hyper(config_method) -> dict[str, Array]:
    """Final values of the hyper-parameters of the chosen method, as arrays."""
    chosen = config_method[config_method.name]
    names = METHODS[config_method.name].HYPERPARAMETERS
    values = {"beta": config_method.beta} | {name: chosen[name] for name in names}
    return {name: jnp.asarray(value, jnp.result_type(float)) for name, value in values.items()}
