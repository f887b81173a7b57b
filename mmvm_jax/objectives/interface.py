"""Interface between methods and models, and what several methods share."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from mmvm_jax.errors import Range, UserError
from mmvm_jax.types import Array, Batch, DiagonalGaussian


class Functions(Protocol):
    """Functions of a model with parameters that a method may call (``mmvm_jax.models.model.BoundModel``)."""

    names: tuple[str, ...]  # of the modalities, M of them
    identifiers: Array  # [M] uint32, from the names
    method_params: dict  # current values of the parameters that the method's ``init`` returned

    def encode(self, inputs: Mapping[str, Array]) -> DiagonalGaussian:
        """Return the posteriors of all modalities: {name: [B, ...]} -> [M, B, D]."""

    def log_likelihood(self, batch: Batch, z: Array, active: Array | bool = True) -> Array:
        """Return the weighted log p(x_m | z_m): z [M, ..., B, D] -> [M, ..., B] nats; 0 where absent.

        Decoder m reads row m of z. ``active``, bool [M, ..., B] or broadcastable to it, must be False for latents
        from absent modalities, so that they are excluded from the decoders' batch statistics.
        """


class Hyperparameter(NamedTuple):
    """A traced number of a method. It may be annealed, and may differ between runs that share a compiled program."""

    default: float
    allowed: Range
    zero_is_off: bool = False  # if it is 0 and not annealed, ``loss`` does not receive it and omits its terms


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """``Options`` of methods without options."""


def no_parameters(key: Array, batch: Batch, functions: Functions, options) -> dict:
    """Return no parameters: ``init`` of methods that learn only encoders and decoders."""
    return {}


def check_at_least(least: int, method: str, field: str, options) -> None:
    """Raise UserError if an integer option of a method is too small."""
    if getattr(options, field) < least:
        value = getattr(options, field)
        raise UserError(f"config.method.{method}.{field} is {value}; allowed: {least} and more")
