"""Train runs that differ only in numbers side by side, as one program.

Seed, learning rate, beta and a method's own hyper-parameters are arguments of the step, so one ``vmap`` trains many
runs at once. Each run has its own noise and its own order of the examples, and writes into its own workdir what it
would write if it were trained alone.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from mmvm_jax.artifacts import run_folder
from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.artifacts.metric_writers import MetricWriter
from mmvm_jax.config import evaluated_split
from mmvm_jax.data.batches import Order
from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.data.on_disk import StoredInputs
from mmvm_jax.errors import Stopped
from mmvm_jax.models.model import Model
from mmvm_jax.networks.formulations import for_many_runs
from mmvm_jax.objectives.method import Method
from mmvm_jax.runtime import devices, processes
from mmvm_jax.runtime.progress import Progress, log
from mmvm_jax.runtime.signals import Interruption
from mmvm_jax.training.feeding import Resident
from mmvm_jax.training.loop import num_steps, steps_at_once
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import make_step
from mmvm_jax.training.step_checks import is_out_of_memory


class Replica(NamedTuple):
    """A run: its configuration and its folder."""

    config: Any
    workdir: str


def is_faster(config) -> bool:
    """Return whether training side by side is expected to be faster than one run after the other.

    On a CPU a single run keeps all cores busy (two cores, small dense networks: 31 ms per step and run either way).
    Runs that may skip steps or stop early are excluded, because each would have to do so at its own steps.
    """
    alone = config.train.skip_not_finite or config.train.early_stopping.patience
    return jax.default_backend() != "cpu" and not alone


def is_possible(data: DataSet) -> bool:
    """Return whether the examples are in memory. On disk they would be read once per run."""
    return not isinstance(data.train.inputs, StoredInputs)


def train_replicas(
    replicas: list[Replica], model: Model, method: Method, data: DataSet, held_out: Callable | None = None
) -> None:
    """Train runs from their start to their last step, as many at a time as memory allows.

    A run whose metrics are no longer finite keeps its last good checkpoint; the others continue.

    Args:
      replicas: runs whose configurations differ only in seed, learning rate and final hyper-parameters.
      model: the model of all runs.
      method: the method of all runs.
      data: the data set of all runs, in memory.
      held_out: as for ``train``.

    Raises:
      Stopped: a signal asked for it. The states are saved.
    """
    at_once, waiting = len(replicas), list(replicas)
    while waiting:
        try:
            _train(waiting[:at_once], model, method, data, held_out)
            waiting = waiting[at_once:]
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
            at_once = -(-at_once // 2)
            log.info("not enough memory: %d runs at a time", at_once)


def _train(replicas: list[Replica], model: Model, method: Method, data: DataSet, held_out: Callable | None) -> None:
    config, orders = replicas[0].config, _Orders(replicas, data.train)
    total_steps, states, hypers = num_steps(config, len(data.train.labels)), [], []
    for replica in replicas:
        states.append(init_state(replica.config, model, method, first_batch(replica.config, data)))
        hypers.append(hyper_parameters(replica.config))
    stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(trees))
    step = jax.vmap(make_step(config, model, method, total_steps))
    steps = devices.data_parallel_steps(step, jax.vmap(Resident.read, in_axes=(None, 1)))
    table, hyper, state, done = Resident.place(data.train), stack(hypers), devices.replicate(stack(states)), 0
    count, every = steps_at_once(config), config.train
    with contextlib.ExitStack() as stack_of_records:
        interruption = stack_of_records.enter_context(Interruption())
        records = [stack_of_records.enter_context(_Record(replica, data, len(replicas))) for replica in replicas]
        progress = stack_of_records.enter_context(Progress(total_steps, "steps", f"{len(replicas)} runs at once"))
        while done < total_steps:
            items = orders.take(min(count - done % count, total_steps - done))
            with for_many_runs():  # the first steps are traced
                state, metrics, stop = steps(state, items, table, hyper, interruption.requested)
            done += len(items)
            metrics = jax.device_get(metrics)
            whole = done % every.checkpoint_every == 0 or done == total_steps
            save = stop or whole
            for number, record in enumerate(records):
                record.add({name: values[:, number] for name, values in metrics.items()})
                if save or done % every.log_every == 0:
                    record.write(done)
                if save:
                    own = jax.tree.map(lambda leaf: leaf[number], state)
                    if whole and held_out:
                        record.note(done, held_out(own, hypers[number]))
                    record.save(done, own, orders.position(number))
            progress.update(len(items))
            if stop:
                break
    if processes.in_any_process(interruption.requested):
        raise Stopped(f"stopped and saved at step {done}; run the same command again to resume")


class _Orders:
    """The orders in which the runs read the examples."""

    def __init__(self, replicas: list[Replica], split: Split):
        batch_size = replicas[0].config.train.batch_size
        self._share = processes.share(batch_size)
        self._orders = [Order(len(split.labels), batch_size, replica.config.seed) for replica in replicas]

    def take(self, num_steps: int) -> list[np.ndarray]:
        """Return the examples of the next steps, each [B, R]: this process's share of the rows, one column per run."""
        return [np.stack([next(order)[self._share] for order in self._orders], axis=1) for _ in range(num_steps)]

    def position(self, number: int) -> dict[str, int]:
        """Return the position of a run in its order."""
        return self._orders[number].get_state()


class _Record:
    """Writes the metrics and checkpoints of one run, if this process is the first."""

    def __init__(self, replica: Replica, data: DataSet, num_replicas: int):
        self._config, self._workdir, self._data = replica.config, replica.workdir, data
        self._num_replicas = num_replicas
        self._begun, self._pending, self._is_good = time.monotonic(), [], True

    def __enter__(self):
        self._open = contextlib.ExitStack()
        processes.from_first(self._begin)
        return self

    def _begin(self) -> None:
        with contextlib.ExitStack() as stack:  # unlocks the folder if a later step fails
            stack.enter_context(run_folder.locked(self._workdir))
            run_folder.check(self._workdir, self._config)
            run_folder.begin(self._workdir, self._config, self._data)
            self._writer = stack.enter_context(MetricWriter(self._workdir, self._config))
            self._checkpoints = stack.enter_context(Checkpoints(self._workdir))
            self._open = stack.pop_all()

    def __exit__(self, *exception):
        self._open.close()

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Add the metrics [K] of the last steps."""
        self._pending.append(metrics)
        self._is_good &= all(np.isfinite(values).all() for values in metrics.values())

    def write(self, done: int) -> None:
        """Write the means since the last line."""
        if self._is_good and processes.is_first():
            names = self._pending[0]
            means = {name: np.mean(np.concatenate([one[name] for one in self._pending])) for name in names}
            self._writer.write(done, "train", means)
        self._pending = []

    def note(self, done: int, values: dict[str, float]) -> None:
        """Write the values of held-out examples."""
        if self._is_good and processes.is_first():
            self._writer.write(done, evaluated_split(self._config), values)

    def save(self, done: int, state, position: dict[str, int]) -> None:
        """Save a checkpoint."""
        if self._is_good:
            seconds = (time.monotonic() - self._begun) / self._num_replicas  # its share of the time of all
            progress = {"batches": position, "seconds": seconds}
            processes.from_first(lambda: self._checkpoints.save(done, state, progress, self._config.to_dict()))
