"""The training loop: runs steps, logs, saves and stops."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mmvm_jax.artifacts.checkpoints import BEST, Checkpoints
from mmvm_jax.artifacts.metric_writers import MetricWriter
from mmvm_jax.config import evaluated_split
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.errors import Stopped, UserError
from mmvm_jax.models.model import Model
from mmvm_jax.objectives.method import Method
from mmvm_jax.runtime import devices, processes
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.runtime.signals import Interruption
from mmvm_jax.training.early_stopping import EarlyStopping
from mmvm_jax.training.feeding import feed
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import TrainState, first_batch, init_state, start_from
from mmvm_jax.training.step import make_step
from mmvm_jax.training.step_checks import NotFinite, check_finite, enough_memory, explain

_MOST_STEPS = 2**31 - 1  # what int32 can count
_AT_ONCE = 10  # steps in one program, at most: between two of them nothing waits for the host


def num_steps(config, num_examples: int) -> int:
    """Return the number of training steps: ``config.train.steps``, or ``epochs`` times the full batches of an epoch.

    Raises:
      UserError: the epochs have more steps than int32 can count.
    """
    if config.train.steps:
        return config.train.steps
    per_epoch = num_examples // config.train.batch_size
    steps = max(1, round(config.train.epochs * per_epoch))
    if steps > _MOST_STEPS:
        raise UserError(
            f"config.train.epochs is {config.train.epochs}, which are {steps} steps; allowed: up to "
            f"{_MOST_STEPS // per_epoch} epochs of {per_epoch} steps"
        )
    return steps


def steps_at_once(config) -> int:
    """Return the number of steps in one program: the largest that divides the intervals of logs and checkpoints."""
    between = math.gcd(config.train.log_every, config.train.checkpoint_every)
    return max(number for number in range(1, _AT_ONCE + 1) if between % number == 0)


def train(
    config,
    model: Model,
    method: Method,
    data: DataSet,
    workdir: str,
    held_out: Callable | None = None,
    monitored: Callable | None = None,
    callbacks: Sequence[Callable] = (),
) -> TrainState:
    """Train from the newest checkpoint of ``workdir``, or from the start, to the last step or until it stops early.

    Args:
      config: configuration of the run.
      model: the model to train.
      method: the method that defines the loss.
      data: the data set; only its training split is read.
      workdir: folder of the run.
      held_out: (state, hyper) -> values, logged with every checkpoint under the name of the evaluated split.
      monitored: the same for the examples of early stopping, logged as the split "monitored".
      callbacks: functions (step, split, values), called with every line of metrics.

    Raises:
      UserError: the loss, one of its terms or the gradient is not finite more often than may be skipped; memory does
        not suffice; or the checkpoint has more steps than the configuration.
      Stopped: a signal asked for it. The state is saved.
    """
    batches = feed(data.train, config.train.batch_size, config.seed)
    total_steps = num_steps(config, len(data.train.labels))
    with Interruption() as interruption, _open(config, workdir) as checkpoints, enough_memory(config):
        batch = first_batch(config, data)
        state, progress = init_state(config, model, method, batch), {}
        if restored := processes.from_first(checkpoints.newest.restore, state):
            state, progress = restored.state, restored.progress
            batches.position.set_state(progress["batches"])
        elif config.train.start_from:
            state = processes.from_first(start_from, config, model, state, batch)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        processes.from_first(checkpoints.newest.check_room_for_run, size, 2 if checkpoints.best else 0)
        start, state = int(state.step), devices.replicate(state)
        if start > total_steps:
            raise UserError(
                f"--workdir={workdir} holds {start} steps of training; allowed: no fewer, not {total_steps}"
            )
        # The first process opens it first, as its tracker may fail.
        with processes.first_then_others(MetricWriter, workdir, config, start, callbacks) as writer:
            steps = devices.data_parallel_steps(make_step(config, model, method, total_steps), batches.read)
            loop = _Loop(config, steps, batches, writer, checkpoints, interruption, progress, held_out, monitored)
            try:
                state = loop.run(state, start, total_steps)
            except NotFinite as error:
                raise loop.keep_last_good(error, model) from error
    if processes.in_any_process(interruption.requested):  # during the last steps
        raise Stopped(f"stopped and saved at step {total_steps}; run the same command again to resume")
    return state


class _Open(NamedTuple):
    """The checkpoints of a run that is being trained."""

    newest: Checkpoints
    best: Checkpoints | None  # only with early stopping


@contextlib.contextmanager
def _open(config, workdir: str) -> Iterator[_Open]:
    with contextlib.ExitStack() as stack:
        newest = stack.enter_context(Checkpoints(workdir))
        best = stack.enter_context(Checkpoints(workdir, BEST)) if config.train.early_stopping.patience else None
        yield _Open(newest, best)


class _Good(NamedTuple):
    """A state that training can continue from."""

    step: int
    state: TrainState
    position: dict[str, int]  # in the data


class _Loop:
    """Runs several steps at once, and reads their metrics only when a log line or a checkpoint is due."""

    def __init__(self, config, steps, batches, writer, checkpoints, interruption, progress, held_out, monitored):
        self._config, self._steps, self._batches = config, steps, batches
        self._held_out, self._monitored = held_out, monitored
        self._writer, self._checkpoints, self._interruption = writer, checkpoints, interruption
        # Seconds trained, and steps skipped, before this process resumed the run.
        self._seconds, self._skipped = progress.get("seconds", 0.0), progress.get("skipped", 0)
        self._stopping = EarlyStopping(config, progress)
        self._hyper = hyper_parameters(config)
        self._at_once = steps_at_once(config)

    def run(self, state: TrainState, done: int, total_steps: int) -> TrainState:
        """Train until ``total_steps`` steps are done or training stops early; return the state to be used."""
        self._began, batch_size = time.monotonic(), self._config.train.batch_size
        self._good = self._next_good = _Good(done, state, self._batches.position.get_state())
        self._saved = done  # step of the newest checkpoint; 0 for none
        pending, ready, raised = [], [], 0
        with Progress(total_steps * batch_size, "examples", "train", initial=done * batch_size) as progress:
            while done < total_steps and not self._stopping.is_over:
                items = self._batches.take(min(self._at_once - done % self._at_once, total_steps - done))
                flag, table = self._interruption.requested, self._batches.table
                state, metrics, flags = self._steps(state, items, table, self._hyper, flag)
                done += len(items)
                self._log(ready, progress)  # while the devices run the steps just started
                stop, raised = bool(raised), flags  # whether any process was interrupted before the previous steps
                pending, ready = [*pending, (done, metrics)], []
                whole = done % self._config.train.checkpoint_every == 0 or done == total_steps
                save = stop or whole
                if save or done % self._config.train.log_every == 0:
                    pending, ready = [], pending
                    self._next_good = _Good(done, state, self._batches.position.get_state())
                if save:
                    self._log(ready, progress)
                    ready = []
                    if whole:
                        self._measure(done, state)
                    self._save(self._next_good)
                if stop:
                    raise Stopped(f"stopped and saved at step {done}; run the same command again to resume")
        return self._stopping.best(state, self._checkpoints.best)

    def _measure(self, done: int, state: TrainState) -> None:
        """Write the values of held-out and monitored examples; save the state if it is the best so far."""
        if self._held_out:
            self._writer.write(done, evaluated_split(self._config), self._held_out(state, self._hyper))
        if self._monitored:
            values = self._monitored(state, self._hyper)
            self._writer.write(done, "monitored", values)
            if self._stopping.update(done, values):
                self._save(self._next_good, self._checkpoints.best)

    def _log(self, ready: list[tuple[int, dict]], progress: Progress) -> None:
        """Write the means over the given steps as one line, if there are any."""
        if not ready:
            return
        chunks = [metrics for _, metrics in ready]
        values = {name: np.concatenate([np.atleast_1d(chunk[name]) for chunk in chunks]) for name in chunks[0]}
        done, count = ready[-1][0], len(values["loss"])
        skipped = values.pop("skipped", np.zeros(count)).astype(bool)
        limit = self._config.train.skip_not_finite
        check_finite(values, done - count + 1, skipped & (self._skipped + np.cumsum(skipped) <= limit), limit)
        self._good = self._next_good
        self._skipped += int(skipped.sum())
        means = {name: np.mean(steps[~skipped]) if not skipped.all() else np.nan for name, steps in values.items()}
        self._writer.write(done, "train", means | ({"skipped": self._skipped} if limit else {}))
        progress.update(count * self._config.train.batch_size, f"loss {means['loss']:.2f}")

    def keep_last_good(self, error: NotFinite, model: Model) -> NotFinite:
        """Save the state of the last line of metrics; return the error with a description of the batch and advice."""
        good = self._good
        self._batches.position.set_state(good.position)
        items = self._batches.take(error.step - good.step)
        batch = self._batches.read(self._batches.table, items[-1])
        if good.step > self._saved:
            self._save(good)
        return explain(error, self._config, model, good.state, batch, good.step)

    def _save(self, good: "_Good", checkpoints: Checkpoints | None = None) -> None:
        checkpoints = checkpoints or self._checkpoints.newest
        seconds = self._seconds + time.monotonic() - self._began
        progress = {"batches": good.position, "seconds": seconds, "skipped": self._skipped}
        progress |= self._stopping.progress
        save = lambda: checkpoints.save(good.step, good.state, progress, self._config.to_dict())
        processes.from_first(save)
        self._saved = good.step
