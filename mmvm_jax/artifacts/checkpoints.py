"""Checkpoints of a run: the training state, the position in the data and the configuration, saved together.

A state is saved as plain arrays of the host, so it can be restored on any number of devices and processes.
"""

import os
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime import processes
from mmvm_jax.runtime.progress import log

_KEPT = 2
_OVERHEAD = 1_000_000  # bytes that a checkpoint takes beside its arrays


class Restored(NamedTuple):
    """What a checkpoint held."""

    step: int
    state: Any
    progress: dict  # position of the data iterator, seconds trained so far


class Checkpoints:
    """The checkpoints of one run, in ``<workdir>/checkpoints``; to be entered.

    A checkpoint appears under its final name only when it is complete, so a run killed while it writes one
    finds the one before. On leaving, all that was to be saved is written.
    """

    def __init__(self, workdir: str):
        self._directory = os.path.abspath(os.path.join(workdir, "checkpoints"))
        os.makedirs(self._directory, exist_ok=True)  # Orbax leaves that to a process that works alone
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(**processes.working_alone()),
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: dict, config: dict) -> None:
        """Starts writing a checkpoint; training may go on meanwhile.

        Raises:
          UserError: there is no room for it.
        """
        for later in [other for other in self._manager.all_steps() if other >= step]:
            self._manager.delete(later)  # could not be read, or else training would have gone on from it
        state = jax.tree.map(np.array, jax.device_get(state))
        self._check_room(step, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            progress=ocp.args.JsonSave(progress),
            config=ocp.args.JsonSave(config),
        )
        self._manager.save(step, args=items)

    def _check_room(self, step: int, num_bytes: int) -> None:
        """Orbax would only find out in a thread of its own, half-way."""
        self._manager.wait_until_finished()  # of the one before, which takes room too
        needed, free = 1.1 * num_bytes + _OVERHEAD, shutil.disk_usage(self._directory).free
        if free < needed:
            raise UserError(
                f"{self._directory}: no space left on the disk for the checkpoint of step {step}, which takes "
                f"{needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; make room, and the same command goes on from "
                f"step {self.latest_step or 0}",
                exit_code=1,
            )

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that can be read, None if there is none at all.

        Args:
          like: a state of the same structure, of which only types and shapes are read.

        Raises:
          UserError: there are checkpoints, and none can be read.
        """
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore())
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._manager.restore(step, args=items)
                jax.tree.map(_check_shape, like, restored.state)
                return Restored(step, restored.state, restored.progress)
            except Exception as error:  # whatever a damaged file leads to
                log.warning("%s/%d cannot be read (%s)", self._directory, step, first_line(error))
        if steps:
            raise UserError(
                f"{self._directory}: no checkpoint there fits this version and model; use another --workdir"
            )
        return None


def _check_shape(expected: np.ndarray, found: np.ndarray) -> None:
    """Orbax restores an array of another shape without a word."""
    if np.shape(found) != expected.shape:
        raise ValueError(f"an array is {list(np.shape(found))}, the model's {list(expected.shape)}")
