"""Fréchet distance between two sets of features; with features of Inception it is known as FID."""

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import Split
from mmvm_jax.evaluation.translation import Translations
from mmvm_jax.models.trained import Trained, map_split
from mmvm_jax.networks import inception
from mmvm_jax.runtime import devices
from mmvm_jax.runtime.progress import log

_BATCH_SIZE = 20  # limits the memory of Inception's first layers


def classifier_frechet(names: tuple[str, ...], translations: Translations, present: np.ndarray) -> dict[str, float]:
    """Return the distances between real images of every modality and those generated from each single modality.

    Args:
      names: names of the modalities.
      translations: translations of the test split, with features of the classifiers.
      present: [M, N] bool.

    Returns:
      {"frechet/classifier/<from>_to_<to>": distance}, for the pairs with at least two examples.
    """
    assert translations.features is not None and translations.real_features is not None
    values = {}
    for target, from_each in translations.features.items():
        real = translations.real_features[target][present[names.index(target)]]
        for source, known, features in zip(names, translations.known, from_each):
            if min(len(real), known.sum()) > 1:
                name = f"frechet/classifier/{source}_to_{target}"
                values[name] = frechet_distance(real, features[known])
    return values


def inception_frechet(trained: Trained, split: Split, weights_path: str, seed: int) -> dict[str, float]:
    """Return the distances by Inception's features, for all image modalities with one or three channels.

    Args:
      trained: the model; the latents are the same draws as in ``translate_split``.
      split: the examples.
      weights_path: ``config.evaluation.inception_weights``.
      seed: seed of the draws.

    Returns:
      {"frechet/inception/<from>_to_<to>": distance}, for the pairs with at least two examples.

    Raises:
      UserError: the weights cannot be used.
    """
    names, present = trained.model.names, split.present
    images = [m.name for m in trained.model.modalities if m.kind == "image" and m.shape[-1] in (1, 3)]
    state = (trained.params, inception.read_weights(weights_path))
    size = devices.largest_batch_size(_BATCH_SIZE, len(split.labels))
    of_real, of_generated = (devices.data_parallel(run, reduced=False) for run in _make_features(trained, images))
    log.info("evaluate: Inception features of real images")
    real = map_split(of_real, state, split, size)
    values = {}
    for source, members in zip(names, np.eye(len(names), dtype=bool)):
        log.info("evaluate: Inception features of images generated from %s", source)
        generated = map_split(of_generated, state, split, size, members, jax.random.key(seed))
        known = present[members][0]
        for target in images:
            shown = real[target][present[names.index(target)]]
            if min(len(shown), known.sum()) > 1:
                name = f"frechet/inception/{source}_to_{target}"
                values[name] = frechet_distance(shown, generated[target][known])
    return values


def _make_features(trained: Trained, images: list[str]):
    """Return two functions (state, batch, ...) -> {name: [B, 2048]}: for real images and for generated ones."""
    model = trained.model

    def of_real(state, batch):
        inputs = model.prepare(batch).inputs
        return {name: inception.features(state[1], inputs[name]) for name in images}

    def of_generated(state, batch, members, key):
        batch, functions = model.prepare(batch), model.bind(state[0])
        z = trained.translate(functions, functions.encode(batch.inputs), batch, jnp.asarray(members), key)
        generated = functions.mean(functions.decode(z))
        return {name: inception.features(state[1], jnp.clip(generated[name], 0.0, 1.0)) for name in images}

    return of_real, of_generated


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to two sets of features.

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), with unbiased covariances C (Heusel et al. 2017,
    arXiv 1706.08500, equation 6), computed in float64. With any factors L_a' L_a = C_a and L_b' L_b = C_b,
    the trace of the root is the sum of the singular values of L_a L_b'. This needs no matrix root and is exact for
    singular covariances (N <= F).

    Args:
      features_a: [N, F].
      features_b: [N', F].

    Returns:
      The distance, at least 0, in squared units of the features.

    Raises:
      ValueError: fewer than two examples, or different numbers of features.
    """
    a, b = (np.asarray(features, np.float64) for features in (features_a, features_b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"two or more examples of the same features are needed, not {a.shape} and {b.shape}")
    factor_a, factor_b = _covariance_factor(a), _covariance_factor(b)
    cross = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(max(means + np.square(factor_a).sum() + np.square(factor_b).sum() - 2.0 * cross, 0.0))


def _covariance_factor(features: np.ndarray) -> np.ndarray:
    """Return L with L' L = the unbiased covariance: [N, F] -> [min(N, F), F]."""
    centred = features - features.mean(axis=0)
    return np.linalg.qr(centred, mode="r") / np.sqrt(len(features) - 1)
