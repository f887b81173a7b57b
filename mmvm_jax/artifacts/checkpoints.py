"""Checkpoints of a run: training state, position in the data, and configuration, saved together.

The state is saved as NumPy arrays, so it can be restored on any number of devices and processes.
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

NEWEST, BEST = "checkpoints", "best_checkpoint"
_KEPT = {NEWEST: 2, BEST: 1}
_OVERHEAD = 1_000_000  # bytes of a checkpoint in addition to its arrays


class Restored(NamedTuple):
    """The contents of a checkpoint."""

    step: int
    state: Any
    progress: dict  # position of the data iterator, seconds trained so far


class Checkpoints:
    """The checkpoints of one run, in ``<workdir>/checkpoints`` or ``<workdir>/best_checkpoint``; a context manager.

    A checkpoint gets its final name only when it is complete, so a run that is killed while it writes a checkpoint
    resumes from the previous one. Leaving the context waits until all checkpoints are written.
    """

    def __init__(self, workdir: str, folder: str = NEWEST):
        self._directory, self._kept = os.path.abspath(os.path.join(workdir, folder)), _KEPT[folder]
        os.makedirs(self._directory, exist_ok=True)  # Orbax does not, for a process that works alone
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._kept,
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
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: dict, config: dict) -> None:
        """Start writing a checkpoint in the background.

        Raises:
          UserError: the disk has no room for it.
        """
        for later in [other for other in self._manager.all_steps() if other >= step]:
            self._manager.delete(later)  # damaged, or training would have resumed from it
        state = jax.tree.map(np.array, jax.device_get(state))
        self._check_room(step, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            progress=ocp.args.JsonSave(progress),
            config=ocp.args.JsonSave(config),
        )
        self._manager.save(step, args=items)

    def _check_room(self, step: int, num_bytes: int) -> None:
        """Raise UserError if the disk lacks room. Orbax would find out half-way, in its own thread."""
        self._manager.wait_until_finished()  # for the previous one, which takes room, too
        needed, free = _on_disk(num_bytes), shutil.disk_usage(self._directory).free
        if free < needed:
            raise UserError(
                f"{self._directory}: no space left on the disk for the checkpoint of step {step}, which takes "
                f"{needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; make room and run the same command again to "
                f"resume from step {self.latest_step or 0}",
                exit_code=1,
            )

    def check_room_for_run(self, num_bytes: int, others: int = 0) -> None:
        """Check, before training, that the disk has room for all checkpoints that exist at the same time.

        Args:
          num_bytes: size of the state.
          others: number of checkpoints that the run will keep elsewhere on the disk.

        Raises:
          UserError: the disk lacks room.
        """
        # An old checkpoint is deleted when the next one is complete.
        new = others + self._kept + 1 - min(len(self._manager.all_steps()), self._kept)
        needed, free = new * _on_disk(num_bytes), shutil.disk_usage(self._directory).free
        if free < needed:
            raise UserError(
                f"{self._directory}: the run needs {needed / 1e6:.0f} MB for its checkpoints, {free / 1e6:.0f} MB are "
                "free; make room, or choose a --workdir on another disk",
                exit_code=1,
            )

    def progress(self) -> dict:
        """Return the progress of the newest checkpoint; empty if it cannot be read."""
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        try:
            return self._manager.restore(self.latest_step, args=args).progress
        except Exception as error:  # of any kind, as damaged files cause
            log.warning("%s/%d cannot be read (%s)", self._directory, self.latest_step, first_line(error))
            return {}

    def restore(self, like: Any) -> Restored | None:
        """Return the newest checkpoint that can be read, or None if there are no checkpoints.

        Args:
          like: a state of the same structure, of which only types and shapes are read.

        Raises:
          UserError: there are checkpoints, but none can be read.
        """
        self._manager.wait_until_finished()
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore())
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._manager.restore(step, args=items)
                jax.tree.map(_check_shape, like, restored.state)
                return Restored(step, restored.state, restored.progress)
            except Exception as error:  # of any kind, as damaged files cause
                log.warning("%s/%d cannot be read (%s)", self._directory, step, first_line(error))
        if steps:
            raise UserError(
                f"{self._directory}: no checkpoint there fits this version and model; use another --workdir"
            )
        return None


def room_after_run(num_bytes: int) -> float:
    """Return the bytes on disk of the checkpoints that a run leaves; ``num_bytes`` is the size of its state."""
    return _KEPT[NEWEST] * _on_disk(num_bytes)


def delete(workdir: str) -> None:
    """Delete the checkpoints of a run."""
    for folder in _KEPT:
        shutil.rmtree(os.path.join(workdir, folder), ignore_errors=True)


def _on_disk(num_bytes: int) -> float:
    return 1.1 * num_bytes + _OVERHEAD


def _check_shape(expected: np.ndarray, found: np.ndarray) -> None:
    """Raise ValueError if the shapes differ. Orbax does not check them."""
    if np.shape(found) != expected.shape:
        raise ValueError(f"an array is {list(np.shape(found))}, the model's {list(expected.shape)}")
