"""A sweep: the runs of all methods, betas and seeds, each in its own folder, and their results on one page."""

import copy
import os
import pathlib
import shutil
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmvm_jax.artifacts import checkpoints, run_folder
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.data import builders, load_dataset
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.errors import Disconnected, InUse, UserError, first_line
from mmvm_jax.evaluation.held_out import held_out_objective
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.experiments.run import run
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import choose, make_method
from mmvm_jax.report.comparison import COLUMNS, OBJECTIVE, RECONSTRUCTION, Result, write_comparison
from mmvm_jax.report.table import write_results
from mmvm_jax.runtime import compilation_cache, processes, self_check
from mmvm_jax.runtime.files import write_text
from mmvm_jax.runtime.progress import duration, log
from mmvm_jax.training import side_by_side
from mmvm_jax.training.loop import num_steps
from mmvm_jax.training.state import first_batch, num_bytes

_AUTOENCODER = "autoencoder"
TABLE_FILE = "sweep.csv"
FAILURE_FILE = "failure.txt"  # in the folder of a run


class _Run(NamedTuple):
    """One run of the plan."""

    method: str
    beta: float
    seed: int
    config: Any

    @property
    def folder(self) -> str:
        return run_folder.in_sweep(self.method, self.beta, self.seed)


def sweep(
    config,
    workdir: str,
    methods: Sequence[str],
    betas: Sequence[float],
    seeds: Sequence[int],
    command: str,
    elsewhere: Sequence[Result] = (),
    keep_checkpoints: bool = True,
) -> None:
    """Run what is not yet finished, and write ``report.html`` and the tables after every run.

    Several processes may work in one folder: each takes the runs that no other is working on.

    Args:
      config: the configuration that all runs share.
      workdir: folder of the sweep.
      methods: names of methods or variants.
      betas: values of ``config.method.beta``.
      seeds: values of ``config.seed``.
      command: the command that started the sweep, for its report.
      elsewhere: results of runs made elsewhere, which are shown and not repeated.
      keep_checkpoints: whether to keep the checkpoints of a run after its evaluation.

    Raises:
      UserError: before any run begins: a run has a configuration that is not allowed, the data cannot be read, or the
        disk lacks room. Or all runs failed.
    """
    runs = _plan(config, methods, betas, seeds)
    done = {(result.method, result.beta, result.seed) for result in elsewhere}
    runs = [one for one in runs if (one.method, one.beta, one.seed) not in done]
    processes.from_first(run_folder.create, workdir)
    log.info("sweep: %d runs, and %d made elsewhere", len(runs), len(elsewhere))
    compilation_cache.enable(builders.data_directory(config.data.dir))
    self_check.check()
    data = processes.first_then_others(load_dataset, config.data, config.modalities)
    if keep_checkpoints:
        processes.from_first(_check_room, runs, data, workdir)
    _train_side_by_side(runs, data, workdir)
    del data
    page = _Page(config, workdir, command, elsewhere)
    while runs:
        busy = _run_all(runs, workdir, command, page, keep_checkpoints)
        if len(busy) == len(runs):
            log.info("sweep: other processes work on %d more runs, and will add them to the report", len(busy))
            break
        runs = busy
    page.check_any()


def _plan(config, methods: Sequence[str], betas: Sequence[float], seeds: Sequence[int]) -> list[_Run]:
    """Return all runs, with the plain autoencoder as the last, their configurations validated."""
    runs = [
        _Run(method, float(beta), int(seed), _configure(config, method, float(beta), int(seed)))
        for method in methods
        for beta in betas
        for seed in seeds
    ]
    runs.append(_Run(_AUTOENCODER, 0.0, int(seeds[0]), _configure(config, "independent", 0.0, int(seeds[0]))))
    for one in runs:
        validate(one.config)
    return runs


def _configure(config, method: str, beta: float, seed: int):
    """Return the configuration of one run, which does not depend on what else the sweep runs."""
    changed = copy.deepcopy(config)
    with changed.unlocked():
        del changed.sweep
    changed.seed, changed.method.beta = seed, beta
    choose(changed.method, method)
    return changed


def _run_all(runs: list[_Run], workdir: str, command: str, page: "_Page", keep_checkpoints: bool) -> list[_Run]:
    """Run those that no other process is working on, add them to the page, and return the others."""
    busy, seconds = [], []
    for number, one in enumerate(runs):
        mean = sum(seconds) / max(len(seconds), 1)
        left = f", about {duration(mean * (len(runs) - number))} left" if seconds else ""
        log.info("sweep: run %d of %d, %s%s", number + 1, len(runs), one.folder, left)
        begun = time.monotonic()
        try:
            values = _run(one, workdir, command, page.failures)
        except InUse:
            log.info("sweep: %s: another process is working on it", one.folder)
            busy.append(one)
            continue
        seconds.append(time.monotonic() - begun)
        if values is not None:
            page.add(one, values)
            if not keep_checkpoints:
                processes.from_first(checkpoints.delete, os.path.join(workdir, one.folder))
    return busy


class _Page:
    """The report and the tables of a sweep, written anew with every result."""

    def __init__(self, config, workdir: str, command: str, elsewhere: Sequence[Result]):
        self._config, self._workdir, self._command = config, workdir, command
        self._results, self._names = list(elsewhere), []
        self._bound: float | None = None  # objective of the plain autoencoder
        self.failures: dict[str, str] = {}  # {folder of a run: error message}
        self._write()

    def add(self, one: _Run, values: dict[str, float]) -> None:
        """Add the metrics of a run."""
        if one.method == _AUTOENCODER:
            self._bound = values.get(COLUMNS[OBJECTIVE])
        else:
            self._results.append(Result(one.method, one.beta, one.seed, values))
        description = processes.from_first(run_folder.read_description, os.path.join(self._workdir, one.folder))
        self._names = [modality.name for modality in description.modalities]
        self._write()

    def check_any(self) -> None:
        """Raise UserError if there are failures only."""
        if self.failures and not self._results:
            raise UserError(f"all runs failed; the first: {next(iter(self.failures.values()))}", exit_code=1)

    def _write(self) -> None:
        if not self._results or not processes.is_first():
            return
        write_results(os.path.join(self._workdir, TABLE_FILE), self._results, self._names)
        path = write_comparison(self._config, self._results, self._bound, self.failures, self._workdir, self._command)
        log.info("Report: %s", path)


def _check_room(runs: list[_Run], data: DataSet, workdir: str) -> None:
    """Raise UserError if the disk lacks room for the checkpoints of all runs that have not begun."""
    runs = [one for one in runs if not os.path.exists(os.path.join(workdir, one.folder))]
    if not runs:
        return
    config = runs[0].config
    model = make_model(data.modalities, config.network, config.precision)
    size = num_bytes(config, model, make_method(config.method), first_batch(config, data))
    needed, free = len(runs) * checkpoints.room_after_run(size), shutil.disk_usage(workdir).free
    log.info("sweep: about %.1f GB of checkpoints, %.1f GB are free", needed / 1e9, free / 1e9)
    if free < needed:
        raise UserError(
            f"--workdir={workdir}: the checkpoints of {len(runs)} runs need about {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; make room, or delete checkpoints after evaluation: --nokeep_checkpoints"
        )


def _train_side_by_side(runs: list[_Run], data: DataSet, workdir: str) -> None:
    """Train the runs that have not begun side by side if that is faster; the others are trained one by one later."""
    if not runs or not side_by_side.is_faster(runs[0].config):
        return
    if not side_by_side.is_possible(data):
        log.info("sweep: one run after the other, since the examples are read from the disk")
        return
    for method in dict.fromkeys(one.method for one in runs):
        replicas = [
            side_by_side.Replica(one.config, os.path.join(workdir, one.folder)) for one in runs if one.method == method
        ]
        begun = processes.from_first(lambda: {one.workdir for one in replicas if os.path.exists(one.workdir)})  # noqa: B023
        new = [one for one in replicas if one.workdir not in begun]
        if len(new) > 1:
            _train_new(new, data, method)


def _train_new(new: list[side_by_side.Replica], data: DataSet, name: str) -> None:
    config = new[0].config
    try:
        with processes.detect_disconnection():
            model = make_model(data.modalities, config.network, config.precision)
            method = make_method(config.method)
            held_out = held_out_objective(config, model, method, data.test, num_steps(config, len(data.train.labels)))
            side_by_side.train_replicas(new, model, method, data, held_out)
    except Exception as error:  # an error of a single run is reported when it is run alone
        _raise_unless_shared(error)
        log.warning("sweep: %s cannot be trained side by side (%s)", name, first_line(error))


def _raise_unless_shared(error: Exception) -> None:
    """Raise an error that only this process may have, since the other processes would wait for it."""
    if isinstance(error, Disconnected) or (processes.num_processes() > 1 and not isinstance(error, UserError)):
        raise error


def _run(one: _Run, workdir: str, command: str, failures: dict) -> dict[str, float] | None:
    """Return what the run ended with; None, and an entry in ``failures``, if it failed.

    Raises:
      InUse: another process is working on it.
    """
    folder = os.path.join(workdir, one.folder)
    try:
        run(one.config, folder, "train_and_evaluate", command)
        pathlib.Path(folder, FAILURE_FILE).unlink(missing_ok=True)  # of an earlier try
        return processes.from_first(_values, folder)
    except InUse:
        raise
    except Exception as error:  # of any kind; the other runs continue
        _raise_unless_shared(error)
        failures[one.folder] = str(error) or type(error).__name__
        log.error("sweep: %s failed: %s", one.folder, failures[one.folder])
        if processes.is_first():
            write_text(os.path.join(folder, FAILURE_FILE), traceback.format_exc())
        return None
    finally:
        jax.clear_caches()  # other runs cannot use the compiled programs, which take memory


def _values(workdir: str) -> dict[str, float]:
    """Return the metrics of a finished run, with the mean reconstruction error and the objective."""
    values = run_folder.read_evaluation(workdir)
    errors = [value for name, value in values.items() if name.startswith("reconstruction/mse/")]
    if errors:
        values[COLUMNS[RECONSTRUCTION]] = float(np.mean(errors))
    losses = [line["loss"] for line in read_metrics(workdir) if line["split"] == "train"]
    if losses and losses[-1] is not None:
        values[COLUMNS[OBJECTIVE]] = -losses[-1]
    return values
