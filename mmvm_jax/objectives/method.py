"""Build a method from ``config.method``: its module, its static options, and its hyper-parameters at any step."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmvm_jax.errors import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, Range, UserError, unknown_name
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.annealing import SHAPES, anneal, progress_at
from mmvm_jax.types import Array

_FRACTION = Range(1e-6, 1.0)  # of the training
_FUNCTIONS = ("init", "loss", "posterior", "draw", "prior")


@dataclasses.dataclass(frozen=True)
class Method:
    """A method with its options bound; its functions are documented in ``mmvm_jax.objectives``."""

    name: str
    module: ModuleType
    options: Any
    init: Callable = dataclasses.field(init=False)
    loss: Callable = dataclasses.field(init=False)
    posterior: Callable = dataclasses.field(init=False)
    draw: Callable = dataclasses.field(init=False)
    prior: Callable = dataclasses.field(init=False)
    log_prior_ratio: Callable | None = dataclasses.field(init=False)

    def __post_init__(self):
        bind = lambda name: functools.partial(getattr(self.module, name), options=self.options)
        for name in _FUNCTIONS:
            object.__setattr__(self, name, bind(name))
        has_ratio = hasattr(self.module, "log_prior_ratio")
        object.__setattr__(self, "log_prior_ratio", bind("log_prior_ratio") if has_ratio else None)

    @property
    def is_gaussian(self) -> bool:
        """Whether encoders return the means and log-variances of Gaussians."""
        return not hasattr(self.module, "is_gaussian") or self.module.is_gaussian(self.options)


def variants() -> dict[str, tuple[str, dict]]:
    """Return {name in a sweep: (name in ``METHODS``, options)} of all methods and variants."""
    return {
        variant: (name, options)
        for name, module in METHODS.items()
        for variant, options in getattr(module, "VARIANTS", {name: {}}).items()
    }


def default_fields(annealing: dict) -> dict[str, dict]:
    """Return the fields of ``config.method``: the options and hyper-parameters of each method, with their schedules.

    Args:
      annealing: the fields of a schedule. Each hyper-parameter gets its own copy as ``anneal_<name>``.
    """
    fields = {}
    for name, module in METHODS.items():
        hyper = {key: value.default for key, value in module.HYPERPARAMETERS.items()}
        schedules = {f"anneal_{key}": copy.copy(annealing) for key in hyper}
        fields[name] = dataclasses.asdict(module.Options()) | hyper | schedules
    return fields


def make_method(config_method) -> Method:
    """Return the method that ``config.method`` asks for.

    Raises:
      UserError: unknown name, or an option has an invalid value.
    """
    module, chosen = _module(config_method), config_method[config_method.name]
    names = [field.name for field in dataclasses.fields(module.Options)]
    return Method(config_method.name, module, module.Options(**{name: chosen[name] for name in names}))


def check_method(config_method, latent_dim: int) -> None:
    """Check the options of the chosen method, and the hyper-parameters of all methods.

    Raises:
      UserError: a value is invalid, or two values are incompatible.
    """
    make_method(config_method)
    NOT_NEGATIVE.check("config.method.beta", config_method.beta)
    _check_schedule("config.method.anneal_beta", config_method.anneal_beta, NOT_NEGATIVE)
    for name, module in METHODS.items():
        for key, hyperparameter in module.HYPERPARAMETERS.items():
            hyperparameter.allowed.check(f"config.method.{name}.{key}", config_method[name][key])
            _check_schedule(
                f"config.method.{name}.anneal_{key}", config_method[name][f"anneal_{key}"], hyperparameter.allowed
            )
    module, chosen = _module(config_method), config_method[config_method.name]
    if hasattr(module, "check"):
        module.check(chosen, latent_dim)


def _check_schedule(field: str, schedule, allowed: Range) -> None:
    if schedule.shape not in SHAPES:
        raise unknown_name(f"{field}.shape", schedule.shape, SHAPES)
    _FRACTION.check(f"{field}.fraction", schedule.fraction)
    COUNT_OR_NONE.check(f"{field}.steps", schedule.steps)
    COUNT.check(f"{field}.cycles", schedule.cycles)
    allowed.check(f"{field}.start", schedule.start)


def warning(config_method, present: np.ndarray) -> str:
    """Return the method's warning about training data with the mask ``present`` [M, N]; "" if it has none."""
    module = _module(config_method)
    return module.warning(config_method[config_method.name], present) if hasattr(module, "warning") else ""


def find_variant(variant: str) -> tuple[str, dict]:
    """Return the name in ``METHODS`` and the options of a method, given its name in a sweep.

    Raises:
      UserError: unknown name.
    """
    if variant not in variants():
        raise unknown_name("--methods", variant, variants())
    return variants()[variant]


def choose(config_method, variant: str) -> None:
    """Set ``config.method`` to the method with this name in a sweep."""
    config_method.name, options = find_variant(variant)
    config_method[config_method.name].update(options)


def variant_name(config_method) -> str:
    """Return the name of the configured method in a sweep; for ``joint`` this is the aggregation."""
    chosen = config_method[config_method.name]
    for variant, (name, options) in variants().items():
        if name == config_method.name and all(chosen[key] == value for key, value in options.items()):
            return variant
    return config_method.name


def _module(config_method) -> ModuleType:
    name = config_method.name
    if name in METHODS and name in config_method:
        return METHODS[name]
    if name in METHODS:
        raise UserError(f"config.method has no fields of {name!r}; allowed: base(imports=...) with the method's module")
    if name in variants():
        method, options = variants()[name]
        fields = [f"config.method.{method}.{key}={value}" for key, value in options.items()]
        allowed = " ".join([f"config.method.name={method}", *fields])
        raise UserError(f"config.method.name is {name!r}, which is an option of {method!r}; allowed: {allowed}")
    raise unknown_name("config.method.name", name, METHODS)


def hyper_at(config_method, hyper: dict[str, Array], step: Array, num_steps: int) -> dict[str, Array]:
    """Return the hyper-parameters at a step; those with a schedule ``anneal_<name>`` in the configuration change.

    Args:
      config_method: ``config.method``, which has the schedules.
      hyper: final values.
      step: current step of training.
      num_steps: number of steps of the whole training.
    """
    values = dict(hyper)
    for name, schedule in _schedules(config_method).items():
        if name in hyper:
            values[name] = anneal(schedule.shape, schedule.start, hyper[name], progress_at(schedule, step, num_steps))
    return values


def _schedules(config_method) -> dict[str, Any]:
    """Return the schedules of beta and of the chosen method's hyper-parameters."""
    chosen = config_method[config_method.name]
    own = {name: chosen[f"anneal_{name}"] for name in METHODS[config_method.name].HYPERPARAMETERS}
    return {"beta": config_method.anneal_beta} | own


def describe_schedules(config_method, num_steps: int) -> dict[str, int]:
    """Return {description: number of steps} of the schedules of the chosen method that change its hyper-parameters."""
    descriptions = {}
    for name, schedule in _schedules(config_method).items():
        if schedule.shape != "constant":
            place = "config.method" if name == "beta" else f"config.method.{config_method.name}"
            end = config_method.beta if name == "beta" else config_method[config_method.name][name]
            steps = schedule.steps or round(schedule.fraction * num_steps / schedule.cycles)
            text = f"{name} moves from {schedule.start:g} to {end:g} during the first {steps} steps"
            repeated = f" of each of {schedule.cycles} cycles" if schedule.cycles > 1 else ""
            descriptions[f"{text}{repeated} ({place}.anneal_{name}.fraction={schedule.fraction:g})"] = steps
    return descriptions


def final_hyper(config_method) -> dict[str, Array]:
    """Return the final values of the chosen method's hyper-parameters, as arrays, without those that are off."""
    chosen, values = config_method[config_method.name], {"beta": config_method.beta}
    for name, hyperparameter in METHODS[config_method.name].HYPERPARAMETERS.items():
        is_constant = chosen[f"anneal_{name}"].shape == "constant"
        if not (hyperparameter.zero_is_off and is_constant and chosen[name] == 0):
            values[name] = chosen[name]
    return {name: jnp.asarray(value, jnp.result_type(float)) for name, value in values.items()}
