"""Expected data given latents, clipped to the range of the data."""

import jax
import jax.numpy as jnp

from mmvm_jax.models.likelihoods import LARGEST_COUNT, most_likely_tokens
from mmvm_jax.models.model import BoundModel
from mmvm_jax.types import Array

# Ranges of the data of a kind, as prepared for the networks.
_RANGES = {"image": (0.0, 1.0), "counts": (0.0, LARGEST_COUNT)}


def expected_data(functions: BoundModel, z: Array) -> dict[str, Array]:
    """Return the expected data given latents [M, B, D], clipped to their range; for tokens probabilities [B, T, V]."""
    decoded = functions.decode(z)
    expected = functions.mean(decoded)
    for modality in functions.model.modalities:
        if modality.kind == "tokens":
            expected[modality.name] = jax.nn.softmax(decoded[modality.name])
        elif modality.kind in _RANGES:
            expected[modality.name] = jnp.clip(expected[modality.name], *_RANGES[modality.kind])
    return expected


def as_data(functions: BoundModel, expected: dict[str, Array]) -> dict[str, Array]:
    """Convert the outputs of ``expected_data`` to data: probabilities of tokens become the most probable ids."""
    tokens = {modality.name: modality for modality in functions.model.modalities if modality.kind == "tokens"}
    return {name: most_likely_tokens(x, tokens[name]) if name in tokens else x for name, x in expected.items()}
