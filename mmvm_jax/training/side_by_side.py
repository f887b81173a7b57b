"""Runs that differ only in numbers, trained side by side as one program.

Seed, learning rate, beta and a method's own hyper-parameters are arguments of the step, so one ``vmap`` trains many
runs at once. Each draws its own noise and its own order of the examples, as if it were alone, and leaves in its own
workdir what training alone would have left.
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
    """One of the runs."""

    config: Any
    workdir: str


def pay_off(config) -> bool:
    """Whether runs side by side are faster than one after the other, as far as can be said without the data.

    On a CPU a single run keeps all cores busy (two cores, small dense networks: 31 ms a step and run either way). Runs
    that may skip steps count them alone.
    """
    return jax.default_backend() != "cpu" and not config.train.skip_not_finite


def are_possible(data: DataSet) -> bool:
    """Whether the examples are in memory; from the disk they would be read once for every run."""
    return not isinstance(data.train.inputs, StoredInputs)


def train_together(
    replicas: list[Replica], model: Model, method: Method, data: DataSet, held_out: Callable | None = None
) -> None:
    """Trains runs from their start to their last step, as many at a time as memory allows.

    A run that becomes not finite is left at its last good checkpoint; the others go on.

    Args:
      replicas: of configurations that differ in seed, learning rate and final hyper-parameters only.
      model: of all.
      method: of all.
      data: of all, in memory.
      held_out: as for ``train``.

    Raises:
      Stopped: a signal asked for it; what was done is saved.
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
    steps = devices.spread_steps(step, jax.vmap(Resident.read, in_axes=(None, 1)))
    table, hyper, state, done = Resident.place(data.train), stack(hypers), devices.on_all_devices(stack(states)), 0
    count, every = steps_at_once(config), config.train
    with contextlib.ExitStack() as stack_of_records:
        interruption = stack_of_records.enter_context(Interruption())
        records = [stack_of_records.enter_context(_Record(replica, data, len(replicas))) for replica in replicas]
        progress = stack_of_records.enter_context(Progress(total_steps, "steps", f"{len(replicas)} runs at once"))
        while done < total_steps:
            items = orders.take(min(count - done % count, total_steps - done))
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
        raise Stopped(f"stopped and saved at step {done}; the same command goes on from there")


class _Orders:
    """The orders of all runs' examples."""

    def __init__(self, replicas: list[Replica], split: Split):
        batch_size = replicas[0].config.train.batch_size
        self._share = processes.share(batch_size)
        self._orders = [Order(len(split.labels), batch_size, replica.config.seed) for replica in replicas]

    def take(self, num_steps: int) -> list[np.ndarray]:
        """The examples of the next steps, [B, R] each: this process's share of the rows, a column a run."""
        return [np.stack([next(order)[self._share] for order in self._orders], axis=1) for _ in range(num_steps)]

    def position(self, number: int) -> dict[str, int]:
        """Where a run is in its order."""
        return self._orders[number].get_state()


class _Record:
    """What one run leaves in its workdir, if this process is the one that writes."""

    def __init__(self, replica: Replica, data: DataSet, num_replicas: int):
        self._config, self._workdir, self._data = replica.config, replica.workdir, data
        self._num_replicas = num_replicas
        self._begun, self._pending, self._is_good = time.monotonic(), [], True

    def __enter__(self):
        self._open = contextlib.ExitStack()
        processes.from_first(self._begin)
        return self

    def _begin(self) -> None:
        with contextlib.ExitStack() as stack:  # what fails half-way leaves no folder locked
            stack.enter_context(run_folder.locked(self._workdir))
            run_folder.check(self._workdir, self._config)
            run_folder.begin(self._workdir, self._config, self._data)
            self._writer = stack.enter_context(MetricWriter(self._workdir, self._config))
            self._checkpoints = stack.enter_context(Checkpoints(self._workdir))
            self._open = stack.pop_all()

    def __exit__(self, *exception):
        self._open.close()

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Notes the metrics [K] of the steps just done."""
        self._pending.append(metrics)
        self._is_good &= all(np.isfinite(values).all() for values in metrics.values())

    def write(self, done: int) -> None:
        """Writes their means since the last line."""
        if self._is_good and processes.is_first():
            names = self._pending[0]
            means = {name: np.mean(np.concatenate([one[name] for one in self._pending])) for name in names}
            self._writer.write(done, "train", means)
        self._pending = []

    def note(self, done: int, values: dict[str, float]) -> None:
        """Writes what was measured on held-out examples."""
        if self._is_good and processes.is_first():
            self._writer.write(done, evaluated_split(self._config), values)

    def save(self, done: int, state, position: dict[str, int]) -> None:
        """Saves the state as a run alone would."""
        if self._is_good:
            seconds = (time.monotonic() - self._begun) / self._num_replicas  # its share of what all took
            progress = {"batches": position, "seconds": seconds}
            processes.from_first(lambda: self._checkpoints.save(done, state, progress, self._config.to_dict()))
