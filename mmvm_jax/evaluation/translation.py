"""Translations: every modality generated from every set of sources.

Coherence, reconstruction and imputation are computed from them. The sets of sources are each modality alone, all
modalities except one, and everything observed. Each decoder reads one draw from the method's posterior given the
sources.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import DataSet
from mmvm_jax.evaluation.classifiers import classify
from mmvm_jax.models.trained import Trained, map_split
from mmvm_jax.runtime import devices

# Final position of the example axis of each output; during the computation on devices it is axis 0.
_EXAMPLES_AXIS = {
    "squared_error": 2, "log_likelihood": 2, "predictions": 2, "features": 1, "real_predictions": 1, "real_features": 0,
}  # fmt: skip


class Translations(NamedTuple):
    """Errors and predictions per set of sources, target modality and test example.

    Errors are NaN if the sources or the target are not observed. Predictions are the most likely class, or, with one
    more axis, probabilities of binary labels. Predictions and features are None without classifiers.
    """

    sources: tuple[str, ...]  # R names of sets of sources, see ``source_sets``
    known: np.ndarray  # [R, N] bool: at least one of the sources is observed
    squared_error: np.ndarray  # [R, M, N] mean over the event axes, in the units of the network; NaN for tokens
    log_likelihood: np.ndarray  # [R, M, N] nats, unweighted
    predictions: np.ndarray | None = None  # [R, M, N] or [R, M, N, C]
    features: dict[str, np.ndarray] | None = None  # {name: [M, N, F]} of images, for the M single sources
    real_predictions: np.ndarray | None = None  # [M, N] or [M, N, C], of the real examples
    real_features: dict[str, np.ndarray] | None = None  # {name: [N, F]}


def source_sets(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return {name of the set: [M] bool}: "<name>", "others_<name>" (all modalities except one) and "all"."""
    eye = np.eye(len(names), dtype=bool)
    alone = {name: row for name, row in zip(names, eye)}
    others = {f"others_{name}": ~row for name, row in zip(names, eye)}
    return alone | others | {"all": np.ones(len(names), bool)}


def translate_split(
    trained: Trained, classifiers: dict | None, data: DataSet, batch_size: int, seed: int
) -> Translations:
    """Compute all translations of the test split."""
    translate = devices.data_parallel(_make_translate(trained, data), reduced=False)
    sets = source_sets(trained.model.names)
    members = np.stack(list(sets.values()))
    state = (trained.params, classifiers)
    outputs = map_split(translate, state, data.test, batch_size, jnp.asarray(members), jax.random.key(seed))
    outputs = _each_leaf(lambda leaf, axis: np.moveaxis(leaf, 0, axis), outputs)
    present = data.test.present
    known = np.stack([present[row].any(axis=0) for row in members])
    for name in ("squared_error", "log_likelihood"):
        outputs[name] = np.where(known[:, None] & present[None], outputs[name], np.nan)
    return Translations(tuple(sets), known, **outputs)


def _each_leaf(function, outputs: dict) -> dict:
    """Apply ``function(leaf, axis of the examples)`` to every leaf."""
    return {
        name: jax.tree.map(lambda leaf: function(leaf, _EXAMPLES_AXIS[name]), output)
        for name, output in outputs.items()
    }


def _make_translate(trained: Trained, data: DataSet):
    """Return (state, batch, sources [R, M], key) -> {field of ``Translations``: leaves [B, ...]}."""
    model = trained.model
    weights = jnp.array([modality.weight for modality in model.modalities])[:, None]

    def translate(state, batch, sources, key):
        params, classifiers = state
        batch, functions = model.prepare(batch), model.bind(params)
        posteriors = functions.encode(batch.inputs)

        def from_source(members):
            z = trained.translate(functions, posteriors, batch, members, key)
            decoded = functions.decode(z)
            generated = functions.mean(decoded)
            outputs = {
                "squared_error": _squared_errors(model, generated, batch),
                "log_likelihood": functions.output_log_likelihood(batch, decoded) / weights,
            }
            if classifiers is not None:
                classified = classify(model, data, classifiers, generated)
                outputs |= dict(zip(("predictions", "features"), classified))
            return outputs

        outputs = jax.lax.map(from_source, sources)
        if classifiers is not None:
            outputs["features"] = jax.tree.map(lambda leaf: leaf[: len(model.names)], outputs["features"])
            classified = classify(model, data, classifiers, batch.inputs)
            outputs |= dict(zip(("real_predictions", "real_features"), classified))
        return _each_leaf(lambda leaf, axis: jnp.moveaxis(leaf, axis, 0), outputs)

    return translate


def _squared_errors(model, generated, batch):
    """Return squared errors [M, B], averaged over the known entries."""
    rows = []
    for modality in model.modalities:
        errors = jnp.square(generated[modality.name] - batch.inputs[modality.name]).reshape(len(batch.index), -1)
        # The difference of two token ids has no meaning.
        rows.append(jnp.full(len(errors), jnp.nan) if modality.kind == "tokens" else jnp.nanmean(errors, axis=1))
    return jnp.stack(rows)
