"""The fitted prior of methods without their own, stored in the workdir."""

import os

import numpy as np

from mmvm_jax.data.dataset import DataSet
from mmvm_jax.data.raw import DAMAGED
from mmvm_jax.errors import first_line
from mmvm_jax.models.priors import GaussianMixturePrior, draw_aggregate, fit_prior, has_prior
from mmvm_jax.models.trained import Trained
from mmvm_jax.runtime import processes
from mmvm_jax.runtime.files import replacing
from mmvm_jax.runtime.progress import log

PRIOR_FILE = "prior.npz"
_FITTED_TO = "draws"  # from the posteriors; earlier versions fitted it to the posteriors' means, without this entry


def fitted_prior(config, trained: Trained, data: DataSet, workdir: str, step: int) -> GaussianMixturePrior | None:
    """Return the prior fitted to the posteriors after ``step`` steps; None if the method has its own prior.

    It is read from the workdir, or fitted and written there.
    """
    if has_prior(trained):
        return None
    settings = config.evaluation
    if (kept := processes.from_first(read_prior, workdir, step, settings.mixture_components)) is not None:
        return kept
    log.info("fitting a prior to the posteriors of the training examples")
    draws = draw_aggregate(trained, data.train, settings.batch_size, config.seed)
    prior = processes.from_first(fit_prior, draws, settings.mixture_components, config.seed)
    path = os.path.join(workdir, PRIOR_FILE)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, step=step, asked_for=settings.mixture_components, fitted_to=_FITTED_TO, **prior._asdict())
    return prior


def read_prior(workdir: str, step: int, num_components: int) -> GaussianMixturePrior | None:
    """Read the stored prior; None if it is missing, damaged, or was fitted in another way or at another step."""
    path = os.path.join(workdir, PRIOR_FILE)
    if not os.path.exists(path):
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            prior = GaussianMixturePrior(*(arrays[name] for name in GaussianMixturePrior._fields))
            kept = arrays["step"], arrays["asked_for"], arrays.get("fitted_to", "means")
            return prior if kept == (step, num_components, _FITTED_TO) else None
    except DAMAGED as error:
        again = "fit it again: mmvm_jax.main --mode=evaluate, or mmvm_jax.fit"
        log.warning("%s is damaged (%s); %s", path, first_line(error), again)
        return None
