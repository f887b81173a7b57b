"""Writers of metrics: ``metrics.jsonl``, TensorBoard event files and, optionally, Weights & Biases."""

import contextlib
import importlib.util
import json
import os
import secrets
from typing import Protocol

import numpy as np

from mmvm_jax.errors import UserError, first_line, unknown_name
from mmvm_jax.runtime import processes
from mmvm_jax.runtime.files import write_text

METRICS_FILE = "metrics.jsonl"
TRACKERS = ("none", "wandb")


class _Sink(Protocol):
    """A destination of metrics. Values that are not finite are None."""

    def write(self, step: int, split: str, numbers: dict[str, float | None]) -> None: ...

    def close(self) -> None:
        """Write buffered values and close files."""


class MetricWriter:
    """Context that writes scalars to ``<workdir>/metrics.jsonl``, to TensorBoard and to ``config.tracker``."""

    def __init__(self, workdir: str, config, from_step: int = 0):
        """Open the destinations. Lines after ``from_step`` are removed, since those steps will be repeated.

        Raises:
          UserError: the tracker cannot be reached.
        """
        self._sinks: list[_Sink] = []
        if config.tracker != "none" and processes.is_first():
            self._sinks.append(_WeightsAndBiases(workdir, config))  # first, as it may fail
        self._sinks += [_Lines(workdir, from_step), _TensorBoard(workdir, from_step)]

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one line. Values that are not finite are null in ``metrics.jsonl``, and omitted elsewhere."""
        numbers = {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
        for sink in self._sinks:
            sink.write(step, split, numbers)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for sink in self._sinks:
            sink.close()


class _Lines:
    """JSON lines, one object per line."""

    def __init__(self, workdir: str, from_step: int):
        path = os.path.join(workdir, METRICS_FILE)
        kept = [line for line in read_metrics(workdir) if line["step"] <= from_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(path, "a")  # noqa: SIM115, closed by close

    def write(self, step, split, numbers):
        self._file.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()


class _TensorBoard:
    def __init__(self, workdir: str, from_step: int):
        from tensorboardX import SummaryWriter  # imported late: slow, and only training needs it

        self._writer = SummaryWriter(os.path.join(workdir, "tensorboard"), purge_step=from_step + 1)

    def write(self, step, split, numbers):
        for name, value in numbers.items():
            if value is not None:
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def close(self):
        self._writer.close()


class _WeightsAndBiases:
    """Weights & Biases. Resumes the run of this workdir; WANDB_* sets the project and the offline mode."""

    def __init__(self, workdir: str, config):
        import wandb  # an optional dependency

        path = os.path.join(workdir, "wandb_id")
        if not os.path.exists(path):
            with open(path, "x") as file:
                file.write(secrets.token_hex(4))
        with open(path) as file:
            name = file.read().strip()
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "mmvm_jax"),
                id=name,
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

    def write(self, step, split, numbers):
        known = {f"{split}/{name}": value for name, value in numbers.items() if value is not None}
        self._run.log({"step": step, **known})

    def close(self):
        self._run.finish()


def check_tracker(name: str) -> None:
    """Raise UserError if ``config.tracker`` is unknown or not installed."""
    if name not in TRACKERS:
        raise unknown_name("config.tracker", name, TRACKERS)
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(f"config.tracker={name!r} is not installed; pip install 'mmvm_jax[{name}]'")


def read_metrics(workdir: str) -> list[dict]:
    """Return all complete lines of ``metrics.jsonl``, without truncated or damaged ones."""
    path = os.path.join(workdir, METRICS_FILE)
    if not os.path.exists(path):
        return []
    lines = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and {"step", "split"} <= set(line)]
