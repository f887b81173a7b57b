"""Encode one batch."""

import jax.numpy as jnp
import numpy as np

from mmvm_jax.models.trained import Trained, weighted_mean
from mmvm_jax.types import Batch


def encode(trained: Trained, params: dict, batch: Batch) -> dict:
    """Return the latents of one batch: {name or "joint": {"mean": [B, D], "log_variance": [B, D]}}.

    The latent of a name is that of its decoder, given this modality alone. The joint latent is given all observed
    modalities; it has a log-variance only if it is a single Gaussian for all decoders.
    """
    functions, batch = trained.model.bind(params), trained.model.prepare(batch)
    posteriors = functions.encode(batch.inputs)
    given = lambda members: trained.method.posterior(posteriors, batch.present & members[:, None], functions)
    outputs = {}
    for row, (name, members) in enumerate(zip(functions.names, np.eye(len(functions.names), dtype=bool), strict=True)):
        alone = given(members)
        decoder = min(row, alone.log_weights.shape[1] - 1)
        # Only one component has a weight, so the mean over the components is the log-variance of that component.
        moments = zip(("mean", "log_variance"), alone.components, strict=True)
        outputs[name] = {quantity: weighted_mean(alone, values)[decoder] for quantity, values in moments}
    everything = given(np.ones(len(functions.names), bool))
    outputs["joint"] = {"mean": jnp.mean(weighted_mean(everything, everything.components.mean), axis=0)}
    if everything.log_weights.shape[:2] == (1, 1):
        outputs["joint"]["log_variance"] = everything.components.log_variance[0, 0]
    return outputs
