"""Joint coherence: how often all modalities of an unconditional sample have the same class."""

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import DataSet
from mmvm_jax.evaluation.classifiers import classify
from mmvm_jax.models.priors import GaussianMixturePrior, draw_latents, map_unconditional
from mmvm_jax.models.trained import Trained


def joint_coherence(
    trained: Trained, classifiers: dict, fitted: GaussianMixturePrior | None, data: DataSet, batch_size: int, seed: int
) -> dict[str, float]:
    """Return ``coherence/joint``, from one unconditional sample per test example; empty for one modality."""
    model = trained.model
    if len(model.names) < 2:
        return {}

    def predict(functions, index, key):
        generated = functions.mean(functions.decode(draw_latents(trained, functions, fitted, index, key)))
        predictions, _ = classify(model, data, classifiers, generated)
        return jnp.moveaxis(predictions, 1, 0)

    count, key = len(data.test.labels), jax.random.key(seed)
    predictions = map_unconditional(predict, trained, count, batch_size, key)
    return {"coherence/joint": agreement(np.moveaxis(predictions, 0, 1))}


def agreement(predictions: np.ndarray) -> float:
    """Return the share of samples whose modalities all have the same class; for binary labels, the mean over labels.

    Args:
      predictions: [M, N] classes, or [M, N, C] probabilities, which are compared with 0.5.
    """
    decided = predictions > 0.5 if predictions.ndim == 3 else predictions
    return float(np.mean(np.all(decided == decided[:1], axis=0)))
