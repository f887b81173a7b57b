"""Expected data given latents, clipped to the range of the data."""

import jax.numpy as jnp

from mmvm_jax.models.likelihoods import LARGEST_COUNT, LIKELIHOODS
from mmvm_jax.models.model import BoundModel
from mmvm_jax.types import Array

# Ranges of the data of a kind, as prepared for the networks.
_RANGES = {"image": (0.0, 1.0), "counts": (0.0, LARGEST_COUNT)}


def expected_data(functions: BoundModel, z: Array) -> dict[str, Array]:
    """Return the expected data given latents [M, B, D], clipped to their range.

    For categories these are probabilities: [B, T, V] for tokens, [B, P] for tables.
    """
    decoded = functions.decode(z)
    expected: dict[str, Array] = {}
    for modality in functions.model.modalities:
        value = LIKELIHOODS[modality.likelihood].expected(decoded[modality.name], modality)
        low, high = _RANGES.get(modality.kind, (None, None))
        expected[modality.name] = jnp.clip(value, low, high)
    return expected


def as_data(functions: BoundModel, expected: dict[str, Array]) -> dict[str, Array]:
    """Convert the outputs of ``expected_data`` to data: probabilities become the likeliest categories."""
    by_name = {modality.name: modality for modality in functions.model.modalities}
    return {name: LIKELIHOODS[by_name[name].likelihood].to_data(x, by_name[name]) for name, x in expected.items()}


def variance(functions: BoundModel, expected: dict[str, Array]) -> dict[str, Array]:
    """Return the variance of the data around ``expected``; zeros for modalities whose scale is fixed by hand."""
    variances = {}
    for modality in functions.model.modalities:
        of_likelihood, value = LIKELIHOODS[modality.likelihood].variance, expected[modality.name]
        given = of_likelihood(value, modality, functions.learned(modality)) if of_likelihood else 0.0
        variances[modality.name] = given + jnp.zeros_like(value)
    return variances
