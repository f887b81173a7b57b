"""A few test examples and what the model generates from them, for the figures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.models.priors import GaussianMixturePrior, sample_latents
from mmvm_jax.models.trained import Trained
from mmvm_jax.types import Batch

_CANDIDATES = 1_000  # examples that are compared


class Examples(NamedTuple):
    """Real examples and their translations, in the units of the network: images in [0, 1]."""

    inputs: dict[str, np.ndarray]  # {name: [E, ...]}
    present: dict[str, np.ndarray]  # {name: [E] bool}
    labels: np.ndarray  # [E]
    generated: dict[str, dict[str, np.ndarray]]  # {source: {target: [E, ...]}}, one draw given each single source


def example_translations(trained: Trained, data: DataSet, count: int, seed: int) -> Examples:
    """Translate ``count`` test examples, with different labels if there are any."""
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
    """Choose the first complete examples, alternating between labels, without equal inputs if possible.

    If no example is complete, choose among those with the most observed modalities.
    """
    observed = split.present.sum(axis=0)
    best = np.flatnonzero(observed == observed.max())
    groups = _groups(split.labels[best])
    turn = np.zeros(len(best))
    for group in np.unique(groups):
        members = groups == group
        turn[members] = np.arange(members.sum())
    rows = _different(split, best[np.lexsort((groups, turn))], count).astype(np.int32)
    inputs = {name: array[rows] for name, array in split.inputs.items()}
    return Batch(inputs, split.present[:, rows], rows, split.labels[rows])


def _groups(labels: np.ndarray) -> np.ndarray:
    """Number the groups of examples with equal labels: classes by their labels, sets of labels by first appearance."""
    if labels.ndim == 1:
        return labels
    _, first, groups = np.unique(labels, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[groups.reshape(-1)]


def _different(split: Split, rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` rows in which no modality repeats an input, such as an image with several captions.

    Rows that repeat one are only returned if there are no others among the first ``_CANDIDATES``.
    """
    rows = rows[: max(_CANDIDATES, count)]
    seen, is_new = set(), np.zeros(len(rows), bool)
    for place, row in enumerate(rows):
        observed = [name for name, present in zip(split.inputs, split.present[:, row]) if present]
        contents = {(name, np.asarray(split.inputs[name][rows[[place]]]).tobytes()) for name in observed}
        is_new[place] = not seen & contents
        seen |= contents
        if is_new.sum() == count:
            break
    return np.concatenate([rows[is_new], rows[~is_new]])[:count]
