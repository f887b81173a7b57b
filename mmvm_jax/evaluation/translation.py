"""Every modality generated from every set of sources: what coherence, reconstruction and imputation are read off.

The sources are each modality alone, all the others of each modality, and everything observed. Each decoder reads
one draw from the method's posterior given the sources.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax import parallel
from mmvm_jax.data.pipeline import DataSet
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
    judge = parallel.spread(_make_judge(trained, data), reduced=False)
    sets = source_sets(trained.model.names)
    members = np.stack(list(sets.values()))
    state = (trained.params, classifiers)
    outputs = map_split(judge, state, data.test, batch_size, jnp.asarray(members), jax.random.key(seed))
    outputs = {name: np.moveaxis(values, 0, -1) for name, values in outputs.items()}
    present = data.test.present
    known = np.stack([present[row].any(axis=0) for row in members])[:, None]  # [R, 1, N]: a source is there to read
    masks = {"correct": known, "classifier_correct": present}
    shown = {n: np.where(masks.get(n, known & present[None]), v, np.nan) for n, v in outputs.items()}
    return Translations(tuple(sets), **({"correct": None, "classifier_correct": None} | shown))


def _make_judge(trained: Trained, data: DataSet):
    """(state, batch, sources [R, M], key) -> {quantity: [B, R, M], or [B, M] for the real data}."""
    model = trained.model
    networks = [classifier(modality, data.num_classes) for modality in model.modalities]
    weights = jnp.array([modality.weight for modality in model.modalities])[:, None]

    def judge(state, batch, sources, key):
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
                outputs["correct"] = _correct(model, networks, classifiers, generated, batch.labels)
            return outputs

        outputs = jax.lax.map(from_source, sources)
        if classifiers is not None:
            outputs["classifier_correct"] = _correct(model, networks, classifiers, batch.inputs, batch.labels)
        return jax.tree.map(lambda values: jnp.moveaxis(values, -1, 0), outputs)

    return judge


def _squared_errors(model, generated, batch):
    """[M, B], mean over the event axes."""
    errors = [jnp.square(generated[name] - batch.inputs[name]) for name in model.names]
    return jnp.stack([jnp.mean(error.reshape(error.shape[0], -1), axis=1) for error in errors])


def _correct(model, networks, classifiers, inputs, labels):
    """[M, B], whether each modality's classifier names the true label."""
    logits = [network.apply(classifiers[n], inputs[n]) for network, n in zip(networks, model.names)]
    return jnp.stack([(jnp.argmax(row, axis=-1) == labels).astype(jnp.float32) for row in logits])
