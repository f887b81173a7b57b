"""Checks of training steps: numbers that are not finite, and too little memory."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from mmvm_jax.data.arrays import MASK
from mmvm_jax.errors import UserError
from mmvm_jax.models.model import Model
from mmvm_jax.runtime import devices
from mmvm_jax.training.state import TrainState
from mmvm_jax.types import Batch


class NotFinite(UserError):
    """A training step returned a number that is not finite.

    Attributes:
      step: its number, from 1.
      terms: names of the metrics that are not finite; if some belong to single modalities, only those.
      details: the rest of the message.
    """

    def __init__(self, step: int, terms: list[str], details: str = ""):
        self.step, self.terms, self.details = step, terms, details
        super().__init__(f"step {step}: {', '.join(terms)} is not finite{details}", exit_code=1)


def check_finite(metrics: dict[str, np.ndarray], first_step: int, excused: np.ndarray, limit: int) -> None:
    """Check the metrics [K] of consecutive steps, except those that are ``excused`` [K].

    Raises:
      NotFinite: a metric is not finite. The message names the step, the terms and ``limit``, which is
        ``config.train.skip_not_finite``.
    """
    finite = np.all([np.isfinite(values) for values in metrics.values()], axis=0) | excused
    if finite.all():
        return
    place = int(np.argmin(finite))
    wrong = [name for name, values in metrics.items() if not np.isfinite(values[place])]
    parts = [name for name in wrong if "/" in name] or wrong
    so_often = f", and config.train.skip_not_finite={limit} allows no more" if limit else ""
    raise NotFinite(first_step + place, parts, so_often)


def explain(error: NotFinite, config, model: Model, state: TrainState, batch: Batch, kept: int) -> NotFinite:
    """Return the error with what its batch holds, where the last good state is, and what helps.

    Args:
      error: of the step.
      config: of the run.
      model: that is trained.
      state: the last good one.
      batch: of the step, or the share of it that this process has.
      kept: the step of the newest checkpoint; 0 for none.
    """
    batch, named = model.prepare(batch), {term.split("/")[-1] for term in error.terms}
    log_variances = model.bind(jax.device_get(state).variables).encode(batch.inputs).log_variance
    seen = []
    for modality, present, log_variance in zip(model.modalities, np.asarray(batch.present), np.asarray(log_variances)):
        if present.any() and (modality.name in named or not named & set(model.names)):
            largest = ""
            if modality.kind != "tokens":  # the size of a token's id means nothing
                largest = (
                    f"largest value {np.nanmax(np.abs(np.asarray(batch.inputs[modality.name], float)[present])):.3g}, "
                )
            seen.append(f"'{modality.name}' {largest}smallest log-variance {log_variance[present].min():.3g}")
    place = f"the checkpoint of step {kept} is kept" if kept else "no step before could be kept"
    rate = config.optimizer.learning_rate
    return NotFinite(
        error.step,
        error.terms,
        f"{error.details}; in its batch, after standardisation: {'; '.join(seen)}. Stopped, {place}. To continue from "
        f"there, repeat the command or fit with the same workdir and config.optimizer.learning_rate={rate / 10:.3g} or "
        f"config.train.skip_not_finite=100. Codes for missing values, such as -999, belong into '<name>{MASK}'",
    )


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of a step means that memory does not suffice."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


@contextlib.contextmanager
def enough_memory(config) -> Iterator[None]:
    """Run a body that trains, and explain errors of memory.

    Raises:
      UserError: memory does not suffice. The message names settings that need less.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size, pieces = config.train.batch_size, config.train.accumulate
        share = size // devices.num_devices() // pieces  # examples that a device has in memory at once
        helps = (
            [f"config.train.accumulate={2 * pieces}", f"config.train.batch_size={size // 2}"] if share % 2 == 0 else []
        )
        raise UserError(
            f"out of memory with config.train.batch_size={size} and config.train.accumulate={pieces}; allowed in "
            f"another --workdir: {' or '.join([*helps, 'a smaller config.network'])}",
            exit_code=1,
        ) from error
