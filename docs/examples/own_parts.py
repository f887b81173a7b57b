"""Add a method, a network and a metric to the tables of the package. A configuration names this module."""

import geometric
import signal_cnn

from mmvm_jax.evaluation import METRICS
from mmvm_jax.models.trained import encode_split
from mmvm_jax.networks import NETWORKS
from mmvm_jax.objectives import METHODS


def active_dimensions(trained, data, config) -> dict[str, float]:
    """Return the number of latent dimensions per modality whose posterior mean varies by more than 0.01."""
    encoded = encode_split(trained, data.test, config.evaluation.batch_size)
    variances = encoded.posteriors.mean.var(axis=1)  # [M, D]
    return {name: (row > 0.01).sum() for name, row in zip(trained.model.names, variances)}


METHODS["geometric"] = geometric
NETWORKS["signal_cnn"] = signal_cnn
METRICS["active_dimensions"] = active_dimensions
