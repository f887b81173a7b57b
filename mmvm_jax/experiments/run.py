"""A run, from its configuration to its report. It resumes from what the workdir already holds."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence

from mmvm_jax.artifacts import run_folder
from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.artifacts.trackers import track_evaluation
from mmvm_jax.data import builders, load_dataset
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.data.description import describe
from mmvm_jax.evaluation.held_out import held_out_objective
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.inference.prior import fitted_prior
from mmvm_jax.models.model import make_model
from mmvm_jax.models.trained import Trained
from mmvm_jax.objectives.method import describe_schedules, make_method, warning
from mmvm_jax.runtime import compilation_cache, devices, environment, processes, self_check
from mmvm_jax.runtime.files import write_text
from mmvm_jax.runtime.progress import log
from mmvm_jax.training.early_stopping import EarlyStopping, split_monitored
from mmvm_jax.training.loop import num_steps, train
from mmvm_jax.training.state import first_batch, restore

_FEW_STEPS = 50  # of annealing: encoders of few steps do not yet know rare inputs when it ends
_STEPS = "train/steps"  # number of training steps of the evaluated model


def run(config, workdir: str, mode: str, command: str) -> None:
    """Train, evaluate, or both.

    Args:
      config: configuration of the run.
      workdir: folder of the run, on this machine or in object storage.
      mode: "train", "evaluate" or "train_and_evaluate".
      command: the command that started the run, for its report.

    Raises:
      InUse: another run is working in the workdir.
      UserError: the configuration or the workdir cannot be used, or training failed.
    """
    validate(config)
    compilation_cache.enable(builders.data_directory(config.data.dir))
    devices.keep_freed_memory()
    with (
        processes.detect_disconnection(),
        processes.folder_to_write(workdir) as workdir,
        contextlib.ExitStack() as stack,
    ):
        self_check.check()
        processes.from_first(stack.enter_context, run_folder.locked(workdir))
        unchanged = processes.from_first(run_folder.check, workdir, config)
        data = processes.first_then_others(load_dataset, config.data, config.modalities)
        modalities = processes.from_first(run_folder.check_data, workdir, config, data, mode == "evaluate")
        data = dataclasses.replace(data, modalities=modalities)
        total_steps = num_steps(config, len(split_monitored(config, data)[0].train.labels))
        if (
            mode == "train_and_evaluate"
            and unchanged
            and processes.from_first(_is_finished, config, workdir, total_steps)
        ):
            log.info("Nothing left to do: %s has the report of the finished training", workdir)
            return
        if mode != "evaluate":
            train_run(config, data, workdir)
        if mode != "train":
            _evaluate_and_report(config, data, workdir, command)


def train_run(config, data: DataSet, workdir: str, callbacks: Sequence[Callable] = ()) -> None:
    """Train, and write everything that inference needs into the workdir.

    Args:
      config: configuration of the run.
      data: the data set.
      workdir: folder of the run.
      callbacks: functions (step, split, values), called with every line of metrics.

    Raises:
      UserError: training failed.
    """
    model, method = make_model(data.modalities, config.network, config.precision), make_method(config.method)
    processes.from_first(run_folder.begin, workdir, config, data)
    processes.from_first(write_text, os.path.join(workdir, run_folder.ENVIRONMENT_FILE), environment.to_text())
    if message := warning(config.method, data.train.present):
        log.warning("%s", message)
    training, monitored = split_monitored(config, data)
    total_steps = num_steps(config, len(training.train.labels))
    for schedule, steps in describe_schedules(config.method, total_steps).items():
        if steps < _FEW_STEPS:
            log.warning("%s; with so few, raise the fraction or train longer", schedule)
        else:
            log.info("%s", schedule)
    log.info("training on %s", environment.describe_devices())
    measure = functools.partial(held_out_objective, config, model, method, total_steps=total_steps)
    of_monitored = None if monitored is None else measure(monitored, annealed=False)
    state = train(config, model, method, training, workdir, measure(data.test), of_monitored, callbacks)
    fitted_prior(config, Trained(model, method, state.variables), data, workdir, int(state.step))


def _is_finished(config, workdir: str, total_steps: int) -> bool:
    if not os.path.exists(os.path.join(workdir, run_folder.REPORT_FILE)):  # which is written last
        return False
    evaluated = run_folder.read_evaluation(workdir).get(_STEPS)
    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest_step is None:  # a sweep may delete them after the evaluation
            return evaluated is not None
        stopping = EarlyStopping(config, checkpoints.progress() if config.train.early_stopping.patience else {})
        return evaluated == stopping.best_step(checkpoints.latest_step) and (
            stopping.is_over or checkpoints.latest_step == total_steps
        )


def _evaluate_and_report(config, data: DataSet, workdir: str, command: str) -> None:
    # Imported late, so that training starts without waiting for scikit-learn and Matplotlib.
    from mmvm_jax.evaluation.evaluate import evaluate

    model, method = make_model(data.modalities, config.network, config.precision), make_method(config.method)
    restored = processes.from_first(restore, config, model, method, first_batch(config, data), workdir)
    processes.from_first(run_folder.begin_evaluation, workdir, config, data)
    trained = Trained(model, method, restored.state.variables)
    prior = fitted_prior(config, trained, data, workdir, restored.step)
    evaluation = evaluate(config, trained, data, prior)
    seconds = restored.progress["seconds"]
    evaluation.values[_STEPS], evaluation.values["train/seconds"] = float(restored.step), seconds
    evaluation.values["train/examples_per_second"] = restored.step * config.train.batch_size / seconds
    processes.from_first(_report, config, evaluation, data, workdir, command)


def _report(config, evaluation, data: DataSet, workdir: str, command: str) -> None:
    from mmvm_jax.report.report import write_report  # see above

    values = {name: evaluation.values[name] for name in sorted(evaluation.values)}
    write_text(os.path.join(workdir, run_folder.EVALUATION_FILE), json.dumps(values, indent=2) + "\n")
    track_evaluation(workdir, config, int(values[_STEPS]), values)
    log.info("report: drawing figures")
    path = write_report(config, evaluation, describe(data), read_metrics(workdir), workdir, command)
    log.info("Report: %s", path)
