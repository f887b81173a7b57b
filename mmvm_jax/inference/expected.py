"""Expected data of latents, within what data can be."""

import jax
import jax.numpy as jnp

from mmvm_jax.models.likelihoods import LARGEST_COUNT, most_likely_tokens
from mmvm_jax.models.model import BoundModel
from mmvm_jax.types import Array

# Of what a kind's data can be, as the network sees them.
_RANGES = {"image": (0.0, 1.0), "counts": (0.0, LARGEST_COUNT)}


def expected_data(functions: BoundModel, z: Array) -> dict[str, Array]:
    """Expected data of latents [M, B, D], within what data can be; of tokens the probabilities [B, T, V]."""
    decoded = functions.decode(z)
    expected = functions.mean(decoded)
    for modality in functions.model.modalities:
        if modality.kind == "tokens":
            expected[modality.name] = jax.nn.softmax(decoded[modality.name])
        elif modality.kind in _RANGES:
            expected[modality.name] = jnp.clip(expected[modality.name], *_RANGES[modality.kind])
    return expected


def as_data(functions: BoundModel, expected: dict[str, Array]) -> dict[str, Array]:
    """What ``expected_data`` gave, for tokens their most probable ids."""
    tokens = {modality.name: modality for modality in functions.model.modalities if modality.kind == "tokens"}
    return {name: most_likely_tokens(x, tokens[name]) if name in tokens else x for name, x in expected.items()}
