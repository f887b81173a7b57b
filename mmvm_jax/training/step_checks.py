"""What can go wrong in a step of training: numbers that are not finite, and too little memory."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from mmvm_jax.errors import UserError
from mmvm_jax.runtime import devices


def check_finite(metrics: dict[str, np.ndarray], first_step: int, excused: np.ndarray, limit: int) -> None:
    """Looks at the metrics [K] of steps that follow each other, but not at those that are excused: [K] bool.

    Raises:
      UserError: one is not finite; names the step and the terms. ``limit`` is ``config.train.skip_not_finite``.
    """
    finite = np.all([np.isfinite(values) for values in metrics.values()], axis=0) | excused
    if finite.all():
        return
    place = int(np.argmin(finite))
    wrong = [name for name, values in metrics.items() if not np.isfinite(values[place])]
    parts = [name for name in wrong if "/" in name] or wrong
    so_often = f", and config.train.skip_not_finite={limit} allows no more of it" if limit else ""
    raise UserError(
        f"step {first_step + place}: {', '.join(parts)} is not finite{so_often}; stopped, the last good checkpoint is "
        "kept. A smaller learning rate, or more of alpha at the start, may help",
        exit_code=1,
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of a step means that it needs more memory than there is."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


@contextlib.contextmanager
def enough_memory(config) -> Iterator[None]:
    """Runs a body that trains.

    Raises:
      UserError: a step needs more memory than there is; says what would help.
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
