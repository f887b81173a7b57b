"""The whole evaluation of a trained model, in the names that ``evaluation.json`` uses."""

import os
from typing import NamedTuple

import numpy as np

from mmvm_jax.data import builders
from mmvm_jax.data.pipeline import DataSet
from mmvm_jax.evaluation.classifiers import load_classifiers
from mmvm_jax.evaluation.coherence import coherence
from mmvm_jax.evaluation.divergence import jensen_shannon
from mmvm_jax.evaluation.examples import Examples, example_translations
from mmvm_jax.evaluation.probe import probe_all
from mmvm_jax.evaluation.reconstruction import imputation, reconstruction
from mmvm_jax.evaluation.trained import Trained, encode_split
from mmvm_jax.evaluation.translation import translate_split
from mmvm_jax.progress import log


class Evaluation(NamedTuple):
    """Numbers, and what the report draws."""

    values: dict[str, float]
    examples: Examples
    test_means: np.ndarray  # [M, N, D] posterior means of the test split
    test_present: np.ndarray  # [M, N] bool
    test_labels: np.ndarray  # [N]


def evaluate(config, trained: Trained, data: DataSet) -> Evaluation:
    """All metrics that the data set allows, on its test split; deterministic in ``config.seed``."""
    settings, names = config.evaluation, trained.model.names
    labelled = data.label_kind == "class"
    log.info("evaluate: encoding both splits")
    train, train_joint = encode_split(trained, data.train, settings.batch_size)
    test, test_joint = encode_split(trained, data.test, settings.batch_size)
    values = jensen_shannon(trained, data.test, settings.batch_size, settings.divergence_samples, config.seed)
    classifiers = None
    if labelled:
        cache = os.path.join(builders.data_directory(config.data.dir), "classifiers")
        classifiers = load_classifiers(trained.model, data, settings.classifier_epochs, cache)
        log.info("evaluate: latent probes")
        values |= probe_all(
            names,
            (train.mean, train_joint, data.train.labels, data.train.present),
            (test.mean, test_joint, data.test.labels, data.test.present),
            settings.probe_examples,
        )
    log.info("evaluate: translations between modalities")
    translations = translate_split(trained, classifiers, data, settings.batch_size, config.seed)
    values |= reconstruction(names, translations) | imputation(names, translations)
    if labelled:
        values |= coherence(names, translations)
    examples = example_translations(trained, data, settings.figure_examples, config.seed)
    return Evaluation(values, examples, test.mean, data.test.present, data.test.labels)
