"""A few test examples and what the model generates from them, for the figures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.models.priors import GaussianMixturePrior, sample_latents
from mmvm_jax.models.trained import Trained
from mmvm_jax.types import Batch


class Examples(NamedTuple):
    """Real examples and their translations, in the units of the network: images in [0, 1]."""

    inputs: dict[str, np.ndarray]  # {name: [E, ...]}
    present: dict[str, np.ndarray]  # {name: [E] bool}
    labels: np.ndarray  # [E]
    generated: dict[str, dict[str, np.ndarray]]  # {source: {target: [E, ...]}}, one draw given each single source


def example_translations(trained: Trained, data: DataSet, count: int, seed: int) -> Examples:
    """Translate ``count`` test examples, of different classes if there are labels."""
    model = trained.model
    batch = model.prepare(_choose(data.test, count))

    @jax.jit
    def translate(params, batch, sources, key):
        functions = model.bind(params)
        z = trained.translate(functions, functions.encode(batch.inputs), batch, sources, key)
        return functions.mean(functions.decode(z))

    eye, key = jnp.eye(len(model.names), dtype=bool), jax.random.key(seed)
    generated = {name: translate(trained.params, batch, row, key) for name, row in zip(model.names, eye)}
    present = dict(zip(model.names, batch.present))
    return Examples(jax.device_get(batch.inputs), present, np.asarray(batch.labels), jax.device_get(generated))


def unconditional_examples(
    trained: Trained, fitted: GaussianMixturePrior | None, count: int, seed: int
) -> dict[str, np.ndarray]:
    """Generate data from the prior: {name: [E, ...]}. Example e has the same draw in all modalities."""
    z = sample_latents(trained, fitted, count, jax.random.key(seed))

    @jax.jit
    def decode(params, z):
        functions = trained.model.bind(params)
        return functions.mean(functions.decode(z))

    return jax.device_get(decode(trained.params, z))


def _choose(split: Split, count: int) -> Batch:
    """Choose the first complete examples, alternating between classes.

    If no example is complete, choose among those with the most observed modalities.
    """
    observed = split.present.sum(axis=0)
    best = np.flatnonzero(observed == observed.max())
    labels = split.labels[best] if split.labels.ndim == 1 else np.zeros(len(best))
    turn = np.zeros(len(best))
    for label in np.unique(labels):
        members = labels == label
        turn[members] = np.arange(members.sum())
    rows = best[np.lexsort((labels, turn))][:count].astype(np.int32)
    inputs = {name: array[rows] for name, array in split.inputs.items()}
    return Batch(inputs, split.present[:, rows], rows, split.labels[rows])
