"""What an objective may ask of a model, and what most methods answer alike."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from mmvm_jax.errors import Range, UserError
from mmvm_jax.types import Array, Batch, DiagonalGaussian


class Functions(Protocol):
    """What an objective may ask of a model whose parameters are fixed (``mmvm_jax.models.model.BoundModel``)."""

    names: tuple[str, ...]  # of the modalities, M of them
    identifiers: Array  # [M] uint32, from the names
    method_params: dict  # what the method's ``init`` returned, as trained

    def encode(self, inputs: Mapping[str, Array]) -> DiagonalGaussian:
        """{name: [B, ...]} -> [M, B, D]."""

    def log_likelihood(self, batch: Batch, z: Array, active: Array | bool = True) -> Array:
        """z [M, ..., B, D], row m read by decoder m -> weighted log p(x_m | z_m) [M, ..., B]; absent: 0.

        Latents of sources that are absent are not ``active``, bool [M, ..., B] or to be broadcast to it: they are
        kept out of the decoders' batch statistics.
        """


class Hyperparameter(NamedTuple):
    """A traced number of a method, which may be annealed and which runs of one program may differ in."""

    default: float
    allowed: Range
    zero_is_off: bool = False  # while it is 0 and not annealed, ``loss`` does not receive it and omits its terms


def no_parameters(key: Array, batch: Batch, functions: Functions, options) -> dict:
    """``init`` of the methods that learn nothing besides encoders and decoders."""
    return {}


def check_at_least(least: int, method: str, field: str, options) -> None:
    """Raises UserError if a whole number among a method's options is too small."""
    if getattr(options, field) < least:
        value = getattr(options, field)
        raise UserError(f"config.method.{method}.{field} is {value}; allowed: {least} and more")
