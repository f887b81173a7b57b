"""Joint coherence: whether the modalities of an unconditional sample show the same."""

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import DataSet
from mmvm_jax.evaluation.classifiers import judge
from mmvm_jax.models.priors import GaussianMixturePrior, draw_latents, map_unconditional
from mmvm_jax.models.trained import Trained


def joint_coherence(
    trained: Trained, classifiers: dict, fitted: GaussianMixturePrior | None, data: DataSet, batch_size: int, seed: int
) -> dict[str, float]:
    """``coherence/joint`` of as many unconditional samples as there are test examples; empty for one modality."""
    model = trained.model
    if len(model.names) < 2:
        return {}

    def predict(functions, index, key):
        generated = functions.mean(functions.decode(draw_latents(trained, functions, fitted, index, key)))
        predictions, _ = judge(model, data, classifiers, generated)
        return jnp.moveaxis(predictions, 1, 0)

    count, key = len(data.test.labels), jax.random.key(seed)
    predictions = map_unconditional(predict, trained, count, batch_size, key)
    return {"coherence/joint": agreement(np.moveaxis(predictions, 0, 1))}


def agreement(predictions: np.ndarray) -> float:
    """Share of the samples of which all modalities have the same class; for binary labels, mean over the labels.

    Args:
      predictions: [M, N] classes, or [M, N, C] probabilities, of which more than a half counts as yes.
    """
    decided = predictions > 0.5 if predictions.ndim == 3 else predictions
    return float(np.mean(np.all(decided == decided[:1], axis=0)))
