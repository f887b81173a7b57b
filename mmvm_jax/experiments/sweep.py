"""A sweep: the runs of all methods, betas and seeds, each in its own folder, and what they ended with."""

import copy
import os
import pathlib
import traceback

import jax
import numpy as np

from mmvm_jax.artifacts import run_folder
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.data import builders, load_dataset
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.errors import Disconnected, UserError, first_line
from mmvm_jax.evaluation.held_out import held_out_objective
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.experiments.run import run
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import choose, make_method
from mmvm_jax.report.comparison import COLUMNS, OBJECTIVE, RECONSTRUCTION, Result, write_comparison
from mmvm_jax.report.table import as_csv
from mmvm_jax.runtime import compilation_cache, processes, self_check
from mmvm_jax.runtime.files import write_text
from mmvm_jax.runtime.progress import log
from mmvm_jax.training import side_by_side
from mmvm_jax.training.loop import num_steps

_AUTOENCODER = "autoencoder"
TABLE_FILE = "sweep.csv"
FAILURE_FILE = "failure.txt"  # in the folder of a run


def sweep(config, workdir: str, methods: list[str], betas: list[float], seeds: list[int], command: str) -> None:
    """Runs what is not yet finished, and writes ``report.html`` and ``sweep.csv`` after every run.

    Raises:
      UserError: a run has a configuration that is not allowed, before any begins; or all runs failed.
    """
    configs = {}
    for method in methods:
        for beta in betas:
            configs |= {(method, beta, seed): _configure(config, method, beta, seed) for seed in seeds}
    configs[_AUTOENCODER, 0.0, seeds[0]] = _configure(config, "independent", 0.0, seeds[0])
    for one in configs.values():
        validate(one)
    compilation_cache.enable(builders.data_directory(config.data.dir))
    self_check.check()
    _train_together(configs, workdir)
    results, failures, bound = [], {}, None
    for number, ((method, beta, seed), one) in enumerate(configs.items()):
        name = run_folder.in_sweep(method, beta, seed)
        log.info("sweep: run %d of %d, %s", number + 1, len(configs), name)
        values = _run(one, os.path.join(workdir, name), command, failures, name)
        if values is not None and method == _AUTOENCODER:
            bound = values.get(COLUMNS[OBJECTIVE])
        elif values is not None:
            results.append(Result(method, beta, seed, values))
        if results and processes.is_first():
            path = write_comparison(config, results, bound, failures, workdir, command)
            write_text(os.path.join(workdir, TABLE_FILE), as_csv(results, _modality_names(workdir, results[0])))
    if not results:
        raise UserError(f"all runs failed; the first: {next(iter(failures.values()))}", exit_code=1)
    if processes.is_first():
        log.info("Report: %s", path)


def _train_together(configs: dict, workdir: str) -> None:
    """Trains the runs that have not begun side by side where that pays; the others are trained one by one later."""
    some = next(iter(configs.values()))
    pays = side_by_side.pay_off(some)
    data = processes.first_then_others(load_dataset, some.data, some.modalities) if pays else None
    if data is None or not side_by_side.are_possible(data):
        log.info("sweep: one run after the other, since several at once are not possible or no faster here")
        return
    for method in dict.fromkeys(method for method, *_ in configs):
        runs = {key: one for key, one in configs.items() if key[0] == method}
        folders = {key: os.path.join(workdir, run_folder.in_sweep(*key)) for key in runs}
        begun = processes.from_first(lambda: {key for key in runs if os.path.exists(folders[key])})  # noqa: B023
        new = [side_by_side.Replica(runs[key], folders[key]) for key in runs if key not in begun]
        if len(new) > 1:
            _train_new(new, data, method)


def _train_new(new: list[side_by_side.Replica], data: DataSet, name: str) -> None:
    config = new[0].config
    try:
        with processes.together():
            model = make_model(data.modalities, config.network, config.precision)
            method = make_method(config.method)
            held_out = held_out_objective(config, model, method, data.test, num_steps(config, len(data.train.labels)))
            side_by_side.train_together(new, model, method, data, held_out)
    except Exception as error:  # what is to be reported will be when they are tried one by one
        _raise_unless_shared(error)
        log.warning("sweep: %s cannot be trained side by side (%s)", name, first_line(error))


def _raise_unless_shared(error: Exception) -> None:
    """Ends the sweep with an error that may be this process's alone: the others would wait for it."""
    if isinstance(error, Disconnected) or (processes.num_processes() > 1 and not isinstance(error, UserError)):
        raise error


def _modality_names(workdir: str, result: Result) -> list[str]:
    description = run_folder.read_description(
        os.path.join(workdir, run_folder.in_sweep(result.method, result.beta, result.seed))
    )
    return [modality.name for modality in description.modalities]


def _configure(config, method: str, beta: float, seed: int):
    """The configuration of one run."""
    changed = copy.deepcopy(config)
    changed.seed, changed.method.beta = seed, beta
    choose(changed.method, method)
    return changed


def _run(config, workdir: str, command: str, failures: dict, name: str) -> dict[str, float] | None:
    """What the run ended with; None, and an entry in ``failures``, if it failed."""
    try:
        run(config, workdir, "train_and_evaluate", command)
        pathlib.Path(workdir, FAILURE_FILE).unlink(missing_ok=True)  # of an earlier try
        return processes.from_first(_values, workdir)
    except Exception as error:  # whatever it is, the other runs are none the worse for it
        _raise_unless_shared(error)
        failures[name] = str(error) or type(error).__name__
        log.error("sweep: %s failed: %s", name, failures[name])
        if processes.is_first():
            write_text(os.path.join(workdir, FAILURE_FILE), traceback.format_exc())
        return None
    finally:
        jax.clear_caches()  # compiled programs of a run serve no other, and hold memory


def _values(workdir: str) -> dict[str, float]:
    """The metrics of a finished run, the mean reconstruction error and the objective among them."""
    values = run_folder.read_evaluation(workdir)
    errors = [value for name, value in values.items() if name.startswith("reconstruction/mse/")]
    if errors:
        values[COLUMNS[RECONSTRUCTION]] = float(np.mean(errors))
    losses = [line["loss"] for line in read_metrics(workdir) if line["split"] == "train"]
    if losses and losses[-1] is not None:
        values[COLUMNS[OBJECTIVE]] = -losses[-1]
    return values
