"""Checkpoints of a run: the training state, the position in the data and the configuration, saved together."""

import os
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

_KEPT = 2


class Restored(NamedTuple):
    """What a checkpoint held."""

    step: int
    state: Any
    progress: dict  # position of the data iterator, seconds trained so far


class Checkpoints:
    """The checkpoints of one run, in ``<workdir>/checkpoints``.

    A checkpoint appears under its final name only when it is complete, so a run killed while it writes one
    finds the one before.
    """

    def __init__(self, workdir: str):
        options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, create=True)
        self._manager = ocp.CheckpointManager(os.path.abspath(os.path.join(workdir, "checkpoints")), options=options)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, progress: dict, config: dict) -> None:
        """Starts writing a checkpoint; training may go on meanwhile."""
        if step == self.latest_step:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            progress=ocp.args.JsonSave(progress),
            config=ocp.args.JsonSave(config),
        )
        self._manager.save(step, args=items)

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint, its state shaped as ``like``; None if there is none."""
        step = self.latest_step
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return Restored(step, restored.state, restored.progress)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()
