"""What a model says of one batch: the pure functions behind ``mmvm_jax.inference``, which run on every device."""

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.evaluation.generation import GaussianMixturePrior, draw_latents
from mmvm_jax.evaluation.trained import Trained, weighted_mean
from mmvm_jax.likelihoods import LARGEST_COUNT, most_likely_tokens
from mmvm_jax.model import BoundModel
from mmvm_jax.types import Array, Batch

# Of what a kind's data can be, as the network sees them.
_RANGES = {"image": (0.0, 1.0), "counts": (0.0, LARGEST_COUNT)}


def encode(trained: Trained, params: dict, batch: Batch) -> dict:
    """{name, or "joint": {"mean": [B, D], "log_variance": [B, D]}}; of the joint latent where that is one Gaussian.

    The latent of a name is the one that its decoder reads, given this modality alone.
    """
    functions, batch = trained.model.bind(params), trained.model.prepare(batch)
    posteriors = functions.encode(batch.inputs)
    given = lambda members: trained.method.posterior(posteriors, batch.present & members[:, None], functions)
    outputs = {}
    for row, (name, members) in enumerate(zip(functions.names, np.eye(len(functions.names), dtype=bool), strict=True)):
        alone = given(members)
        decoder = min(row, alone.log_weights.shape[1] - 1)
        # A single component has weight here, so that the mean over the components is its own log-variance.
        moments = zip(("mean", "log_variance"), alone.components, strict=True)
        outputs[name] = {quantity: weighted_mean(alone, values)[decoder] for quantity, values in moments}
    everything = given(np.ones(len(functions.names), bool))
    outputs["joint"] = {"mean": jnp.mean(weighted_mean(everything, everything.components.mean), axis=0)}
    if everything.log_weights.shape[:2] == (1, 1):
        outputs["joint"]["log_variance"] = everything.components.log_variance[0, 0]
    return outputs


def impute(keep_samples: bool, trained: Trained, params: dict, batch: Batch, keys: Array) -> dict:
    """Moments of S draws {name: {"mean", "std": [B, ...], "samples": [B, S, ...]}}; of tokens the mode."""
    functions, batch = trained.model.bind(params), trained.model.prepare(batch)
    posteriors, everything = functions.encode(batch.inputs), jnp.ones(len(functions.names), bool)

    def draw(key):
        return _expected(functions, trained.translate(functions, posteriors, batch, everything, key))

    def add(moments, numbered):
        (number, key), (means, squares) = numbered, moments
        drawn = draw(key)
        moved = jax.tree.map(lambda mean, x: mean + (x - mean) / number, means, drawn)
        squares = jax.tree.map(lambda s, x, old, new: s + (x - old) * (x - new), squares, drawn, means, moved)
        return (moved, squares), _as_data(functions, drawn) if keep_samples else None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(draw, keys[0]))
    numbers = jnp.arange(1.0, len(keys) + 1.0)
    (means, squares), samples = jax.lax.scan(add, (zeros, zeros), (numbers, keys))
    outputs = {name: {"mean": mean} for name, mean in _as_data(functions, means).items()}
    for modality in functions.model.modalities:
        if modality.kind != "tokens":
            outputs[modality.name]["std"] = jnp.sqrt(squares[modality.name] / len(keys))
        if keep_samples:
            outputs[modality.name]["samples"] = jnp.moveaxis(samples[modality.name], 0, 1)
    return outputs


def generate(prior: GaussianMixturePrior | None, trained: Trained, params: dict, batch: Batch, key: Array) -> dict:
    """{name: {"mean": [B, ...]}} from one draw of the prior."""
    functions = trained.model.bind(params)
    z = draw_latents(trained, functions, prior, batch.index, key)
    return {name: {"mean": x} for name, x in _as_data(functions, _expected(functions, z)).items()}


def _expected(functions: BoundModel, z: Array) -> dict[str, Array]:
    """Expected data of latents [M, B, D], within what data can be; of tokens the probabilities [B, T, V]."""
    decoded = functions.decode(z)
    expected = functions.mean(decoded)
    for modality in functions.model.modalities:
        if modality.kind == "tokens":
            expected[modality.name] = jax.nn.softmax(decoded[modality.name])
        elif modality.kind in _RANGES:
            expected[modality.name] = jnp.clip(expected[modality.name], *_RANGES[modality.kind])
    return expected


def _as_data(functions: BoundModel, expected: dict[str, Array]) -> dict[str, Array]:
    """What ``_expected`` gave, for tokens their most probable ids."""
    tokens = {modality.name: modality for modality in functions.model.modalities if modality.kind == "tokens"}
    return {name: most_likely_tokens(x, tokens[name]) if name in tokens else x for name, x in expected.items()}
