"""Generate new examples from the prior."""

from mmvm_jax.inference.expected import as_data, expected_data
from mmvm_jax.models.priors import GaussianMixturePrior, draw_latents
from mmvm_jax.models.trained import Trained
from mmvm_jax.types import Array, Batch


def generate(prior: GaussianMixturePrior | None, trained: Trained, params: dict, batch: Batch, key: Array) -> dict:
    """Return the expected data given one draw of the prior per example: {name: {"mean": [B, ...]}}."""
    functions = trained.model.bind(params)
    z = draw_latents(trained, functions, prior, batch.index, key)
    return {name: {"mean": x} for name, x in as_data(functions, expected_data(functions, z)).items()}
