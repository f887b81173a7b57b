"""Every modality generated from every set of sources: what coherence, reconstruction and imputation are read off.

The sources are each modality alone, all the others of each modality, and everything observed. Each decoder reads
one draw from the method's posterior given the sources.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax import parallel
from mmvm_jax.data.pipeline import DataSet, Split
from mmvm_jax.evaluation.classifiers import classifier
from mmvm_jax.evaluation.trained import Trained, map_split


class Translations(NamedTuple):
    """Per source, target modality and test example; NaN where source or target was not observed."""

    sources: tuple[str, ...]  # R of them, named like the rows of ``source_sets``
    correct: np.ndarray | None  # [R, M, N] the target's classifier names the true label; None without labels
    squared_error: np.ndarray  # [R, M, N] mean over the event axes, in the units the network sees
    log_likelihood: np.ndarray  # [R, M, N] nats, unweighted
    classifier_correct: np.ndarray | None  # [M, N] the same for the real data


def source_sets(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """{name of the sources: [M] bool}: "<name>", "others_<name>" (all but one) and "all"."""
    eye = np.eye(len(names), dtype=bool)
    alone = {name: row for name, row in zip(names, eye)}
    others = {f"others_{name}": ~row for name, row in zip(names, eye)}
    return alone | others | {"all": np.ones(len(names), bool)}


def translate_split(
    trained: Trained, classifiers: dict | None, data: DataSet, batch_size: int, seed: int
) -> Translations:
    """Runs all translations of the test split."""
    judge = parallel.spread(_make_judge(trained, data, classifiers is not None), reduced=False)
    sets = source_sets(trained.model.names)
    key, state = jax.random.key(seed), (trained.params, classifiers)
    rows = [map_split(judge, state, data.test, batch_size, jnp.asarray(s), key) for s in sets.values()]
    outputs = {name: np.stack([np.moveaxis(row[name], 1, 0) for row in rows]) for name in rows[0]}
    known = np.stack([_source_observed(data.test, members) for members in sets.values()])
    observed = known[:, None] & data.test.present[None]
    where = lambda mask, values: np.where(mask, values, np.nan)
    labelled = classifiers is not None
    return Translations(
        tuple(sets),
        where(known[:, None], outputs["correct"]) if labelled else None,
        where(observed, outputs["squared_error"]),
        where(observed, outputs["log_likelihood"]),
        where(data.test.present, outputs["classifier_correct"][0]) if labelled else None,
    )


def _source_observed(split: Split, members: np.ndarray) -> np.ndarray:
    """[N]: at least one of the source's members is there to read, and not only what was asked for."""
    return split.present[members].any(axis=0)


def _make_judge(trained: Trained, data: DataSet, labelled: bool):
    """(state, batch, sources [M], key) -> {quantity: [B, M]}."""
    model = trained.model
    networks = [classifier(modality, data.num_classes) for modality in model.modalities]

    def judge(state, batch, sources, key):
        params, classifiers = state
        batch = model.prepare(batch)
        z = trained.translate(params, batch, sources, key)
        functions = model.bind(params)
        generated = functions.decode_mean(z)
        weights = jnp.array([modality.weight for modality in model.modalities])
        outputs = {
            "squared_error": _squared_errors(model, generated, batch),
            "log_likelihood": functions.log_likelihood(batch, z) / weights[:, None],
        }
        if labelled:
            outputs["correct"] = _correct(model, networks, classifiers, generated, batch.labels)
            outputs["classifier_correct"] = _correct(model, networks, classifiers, batch.inputs, batch.labels)
        return {name: values.T for name, values in outputs.items()}

    return judge


def _squared_errors(model, generated, batch):
    """[M, B], mean over the event axes."""
    errors = [jnp.square(generated[name] - batch.inputs[name]) for name in model.names]
    return jnp.stack([jnp.mean(error.reshape(error.shape[0], -1), axis=1) for error in errors])


def _correct(model, networks, classifiers, inputs, labels):
    """[M, B], whether each modality's classifier names the true label."""
    logits = [network.apply(classifiers[n], inputs[n]) for network, n in zip(networks, model.names)]
    return jnp.stack([(jnp.argmax(row, axis=-1) == labels).astype(jnp.float32) for row in logits])
