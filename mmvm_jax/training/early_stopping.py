"""Early stopping: which training examples are monitored, and when their values have stopped improving."""

import dataclasses
import math

from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.data.dataset import DataSet, Split, hold_out
from mmvm_jax.errors import unknown_name
from mmvm_jax.runtime import processes
from mmvm_jax.runtime.progress import log


def split_monitored(config, data: DataSet) -> tuple[DataSet, Split | None]:
    """Set the share ``config.train.early_stopping.share`` of the training examples aside, if early stopping is on.

    Returns:
      The data set with the other training examples, and the monitored ones; None without early stopping.

    Raises:
      UserError: one of the two would be empty.
    """
    fields = config.train.early_stopping
    if not fields.patience:
        return data, None
    training, monitored = hold_out(data.train, fields.share, "config.train.early_stopping.share")
    return dataclasses.replace(data, train=training), monitored


class EarlyStopping:
    """Decides at every checkpoint whether to stop, from the values of the monitored examples.

    A log-likelihood is better if it is higher, every other metric if it is lower.

    Args:
      config: configuration of the run.
      progress: of the checkpoint that training resumes from.
    """

    def __init__(self, config, progress: dict):
        self._patience, self._metric = config.train.early_stopping.patience, config.train.early_stopping.metric
        kept = progress.get("early_stopping") or {"best": None, "step": 0, "waited": 0}
        self._best = math.inf if kept["best"] is None else kept["best"]
        self._step, self._waited = kept["step"], kept["waited"]

    def update(self, step: int, values: dict[str, float]) -> bool:
        """Note the values of a step; return whether they are the best so far.

        Raises:
          UserError: the metric is not among them.
        """
        if self._metric not in values:
            raise unknown_name("config.train.early_stopping.metric", self._metric, values)
        value = values[self._metric] * (-1.0 if self._metric.startswith("log_likelihood/") else 1.0)
        improved = value < self._best
        if improved:
            self._best, self._step, self._waited = value, step, 0
        else:
            self._waited += 1
        return improved

    @property
    def is_over(self) -> bool:
        """True if training should stop."""
        return bool(self._patience) and self._waited >= self._patience

    @property
    def progress(self) -> dict:
        """The values that a checkpoint keeps, so that a resumed run stops at the same step."""
        if not self._patience:
            return {}
        best = self._best if math.isfinite(self._best) else None
        return {"early_stopping": {"best": best, "step": self._step, "waited": self._waited}}

    def best_step(self, last: int) -> int:
        """Return the step of the best checkpoint; without early stopping, that of the ``last``."""
        return self._step or last

    def best(self, state, checkpoints: Checkpoints | None):
        """Return the best state; without early stopping, the last one."""
        if checkpoints is None or int(state.step) == self.best_step(int(state.step)):
            return state
        reason = f"stopped early at step {int(state.step)}" if self.is_over else "finished"
        log.info("%s; %s was best at step %d, whose checkpoint is used", reason, self._metric, self._step)
        return processes.from_first(checkpoints.restore, state).state
