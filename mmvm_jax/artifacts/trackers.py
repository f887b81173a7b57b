"""Trackers of experiments, which show the metrics of many runs: Weights & Biases and MLflow."""

import importlib.util
import os
import time
from collections.abc import Callable

from mmvm_jax.errors import UserError, first_line, unknown_name
from mmvm_jax.runtime.files import write_text

_PROJECT = "mmvm_jax"


class WeightsAndBiases:
    """Weights & Biases. Resumes the run of this workdir; WANDB_* sets the project and the offline mode."""

    def __init__(self, workdir: str, config):
        import wandb  # an optional dependency

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                id=_identifier(workdir, "wandb_id", lambda: os.urandom(4).hex()),
                resume="allow",
                reinit="create_new",  # runs side by side need one each
                name=os.path.basename(os.path.abspath(workdir)),
                dir=workdir,
                config=config.to_dict(),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            raise UserError(
                f"config.tracker='wandb': {first_line(error)}; log in (wandb login), or set WANDB_MODE=offline",
                exit_code=1,
            ) from error
        # wandb's own step must not decrease, but training that resumes from a checkpoint repeats steps.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, split: str, numbers: dict[str, float | None]) -> None:
        """Log the numbers that are known."""
        known = {f"{split}/{name}": value for name, value in numbers.items() if value is not None}
        self._run.log({"step": step, **known})

    def close(self) -> None:
        """Upload buffered values, and end the run."""
        self._run.finish()


class MLflow:
    """MLflow. Resumes the run of this workdir; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME set the place."""

    def __init__(self, workdir: str, config):
        import mlflow  # an optional dependency

        self._entities = mlflow.entities
        try:
            self._client = mlflow.MlflowClient()
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            title = os.path.basename(os.path.abspath(workdir))
            create = lambda: self._client.create_run(experiment, run_name=title).info.run_id
            self._run = _identifier(workdir, "mlflow_id", create)
            known = self._client.get_run(self._run).data.params
            fields = _flat(config.to_dict())
            new = [mlflow.entities.Param(name, value) for name, value in fields.items() if name not in known]
            for start in range(0, len(new), 100):  # the most that a server accepts at once
                self._client.log_batch(self._run, params=new[start : start + 100])
        except mlflow.exceptions.MlflowException as error:
            raise UserError(
                f"config.tracker='mlflow': {first_line(error)}; set MLFLOW_TRACKING_URI", exit_code=1
            ) from error

    def write(self, step: int, split: str, numbers: dict[str, float | None]) -> None:
        """Log the numbers that are known."""
        now = int(1000 * time.time())
        known = {f"{split}/{name}": value for name, value in numbers.items() if value is not None}
        metrics = [self._entities.Metric(name, value, now, step) for name, value in known.items()]
        for start in range(0, len(metrics), 1000):  # the most that a server accepts at once
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


TRACKERS: dict[str, type | None] = {"none": None, "wandb": WeightsAndBiases, "mlflow": MLflow}


def check_tracker(name: str) -> None:
    """Raise UserError if ``config.tracker`` is unknown or not installed."""
    if name not in TRACKERS:
        raise unknown_name("config.tracker", name, TRACKERS)
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(f"config.tracker={name!r} is not installed; pip install 'mmvm_jax[{name}]'")


def track_evaluation(workdir: str, config, step: int, values: dict[str, float]) -> None:
    """Send the final evaluation to the tracker, as the split "evaluation"."""
    tracker = TRACKERS[config.tracker]
    if tracker is not None:
        run = tracker(workdir, config)
        run.write(step, "evaluation", values)
        run.close()


def _identifier(workdir: str, file: str, create: Callable[[], str]) -> str:
    """Return the tracker's name of the run of this workdir, which a file keeps."""
    path = os.path.join(workdir, file)
    if not os.path.exists(path):
        write_text(path, create())
    with open(path) as stream:
        return stream.read().strip()


def _flat(fields: dict, prefix: str = "") -> dict[str, str]:
    """Return {"a.b": text} of nested fields."""
    flat = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
