"""The evaluation of a trained model; the names are those of ``evaluation.json``."""

import os
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from mmvm_jax.data import builders
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.evaluation import METRICS
from mmvm_jax.evaluation.classifiers import load_classifiers
from mmvm_jax.evaluation.clusters import clusters
from mmvm_jax.evaluation.coherence import coherence
from mmvm_jax.evaluation.correlation import correlation
from mmvm_jax.evaluation.divergence import jensen_shannon
from mmvm_jax.evaluation.examples import Examples, example_translations, unconditional_examples
from mmvm_jax.evaluation.frechet import classifier_frechet, inception_frechet
from mmvm_jax.evaluation.joint_coherence import joint_coherence
from mmvm_jax.evaluation.likelihood import likelihood
from mmvm_jax.evaluation.probe import chance_level, probe_all
from mmvm_jax.evaluation.reconstruction import imputation, reconstruction
from mmvm_jax.evaluation.relatedness import Relatedness, relatedness, relatedness_values
from mmvm_jax.evaluation.translation import translate_split
from mmvm_jax.models.priors import GaussianMixturePrior
from mmvm_jax.models.trained import Trained, encode_split
from mmvm_jax.runtime.progress import log


class Evaluation(NamedTuple):
    """Metrics, and the arrays that the report draws."""

    values: dict[str, float]
    examples: Examples
    test_means: np.ndarray  # [M, N, D] posterior means of the test split
    test_present: np.ndarray  # [M, N] bool
    test_labels: np.ndarray  # [N]
    relatedness: dict[tuple[str, str], Relatedness] | None = None  # of all pairs of modalities
    unconditional: dict[str, np.ndarray] | None = None  # {name: [E, ...]}, one draw decoded to every modality


@threadpool_limits.wrap(limits=1)  # more threads wait for each other, several times slower
def evaluate(config, trained: Trained, data: DataSet, fitted: GaussianMixturePrior | None) -> Evaluation:
    """Compute all metrics that the data set allows, on its test split; deterministic given ``config.seed``.

    Args:
      config: configuration of the run.
      trained: the trained model.
      data: the data set.
      fitted: fitted prior of unconditional latents; only used if the method has no prior.
    """
    settings, names, seed = config.evaluation, trained.model.names, config.seed
    log.info("evaluate: encoding both splits")
    train, test = (encode_split(trained, split, settings.batch_size) for split in (data.train, data.test))
    values = likelihood(trained, data.test, settings.batch_size, settings.likelihood_samples, seed)
    log.info("evaluate: distances and correlations between posteriors")
    values |= correlation(names, train, test, settings.probe_examples)
    classifiers, pairs = None, None
    if trained.method.is_gaussian:
        values |= jensen_shannon(trained, data.test, settings.batch_size, settings.divergence_samples, seed)
        pairs = relatedness(names, test, seed)
        values |= relatedness_values(pairs)
    if data.label_kind != "none":
        cache = os.path.join(builders.data_directory(config.data.dir), "classifiers")
        classifiers = load_classifiers(trained.model, data, settings.classifier_epochs, cache)
        log.info("evaluate: latent probes")
        values |= probe_all(names, train, test, settings.probe_examples, settings.random_forest)
        values |= chance_level(data.train.labels, data.test.labels)
    if data.label_kind == "class":
        values |= clusters(names, test, seed)
    values |= _of_generated(config, trained, classifiers, fitted, data)
    for name, metric in METRICS.items():
        values |= {f"{name}/{key}": float(value) for key, value in metric(trained, data, config).items()}
    examples = example_translations(trained, data, settings.figure_examples, seed)
    unconditional = unconditional_examples(trained, fitted, settings.figure_examples, seed)
    means = np.asarray(test.posteriors.mean)
    return Evaluation(values, examples, means, test.present, test.labels, pairs, unconditional)


def _of_generated(
    config, trained: Trained, classifiers: dict | None, fitted: GaussianMixturePrior | None, data: DataSet
) -> dict[str, float]:
    """Compute the metrics of generated data, given other modalities and from the prior."""
    names, batch_size, seed = trained.model.names, config.evaluation.batch_size, config.seed
    log.info("evaluate: translations between modalities")
    translations = translate_split(trained, classifiers, data, batch_size, seed)
    values = reconstruction(names, translations) | imputation(names, translations)
    if config.evaluation.inception_weights:
        values |= inception_frechet(trained, data.test, config.evaluation.inception_weights, seed)
    elif classifiers is not None:
        values |= classifier_frechet(names, translations, data.test.present)
    if classifiers is None:
        return values
    values |= coherence(names, translations, data.test.present, data.test.labels)
    return values | joint_coherence(trained, classifiers, fitted, data, batch_size, seed)
