"""Jensen-Shannon divergence between the posteriors of the modalities."""

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.dataset import Split
from mmvm_jax.distributions import kl_to_mixture
from mmvm_jax.models.trained import Trained, map_split
from mmvm_jax.objectives.noise import modality_keys
from mmvm_jax.runtime import devices


def jensen_shannon(trained: Trained, split: Split, batch_size: int, num_samples: int, seed: int) -> dict[str, float]:
    """Return the Jensen-Shannon divergence of the posteriors: Monte Carlo mean_m KL(q_m || h), 0 to log M nats.

    It is averaged over the examples with at least two observed modalities and a finite divergence. Returns an empty
    dictionary if there are none.
    """

    def divergence(params, batch, key):
        functions = trained.model.bind(params)
        batch = trained.model.prepare(batch)
        keys = modality_keys(key, batch.index, functions.identifiers)
        kl = kl_to_mixture(
            functions.encode(batch.inputs),
            present=batch.present,
            estimator="monte_carlo",
            key=keys,
            num_samples=num_samples,
        )
        return jnp.sum(kl, axis=0) / jnp.maximum(jnp.sum(batch.present, axis=0), 1)

    run = devices.data_parallel(divergence, reduced=False)
    values = map_split(run, trained.params, split, batch_size, jax.random.key(seed))
    counted = (split.present.sum(axis=0) > 1) & np.isfinite(values)
    return {"divergence/jensen_shannon": float(np.mean(values[counted]))} if counted.any() else {}
