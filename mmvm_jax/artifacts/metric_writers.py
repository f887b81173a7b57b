"""Writers of metrics: ``metrics.jsonl``, TensorBoard event files, a tracker, and callbacks of the user."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mmvm_jax.artifacts.trackers import TRACKERS
from mmvm_jax.runtime import processes
from mmvm_jax.runtime.files import write_text

METRICS_FILE = "metrics.jsonl"


class _Sink(Protocol):
    """A destination of metrics. Values that are not finite are None."""

    def write(self, step: int, split: str, numbers: dict[str, float | None]) -> None: ...

    def close(self) -> None:
        """Write buffered values and close files."""


class MetricWriter:
    """Context that writes scalars to ``<workdir>/metrics.jsonl``, TensorBoard, ``config.tracker`` and callbacks."""

    def __init__(self, workdir: str, config, from_step: int = 0, callbacks: Sequence[Callable] = ()):
        """Open the destinations. Lines after ``from_step`` are removed, since those steps will be repeated.

        Args:
          workdir: folder of the run.
          config: configuration of the run.
          from_step: step from which training resumes.
          callbacks: functions (step, split, {name: value or None}), called in every process.

        Raises:
          UserError: the tracker cannot be reached.
        """
        self._sinks: list[_Sink] = []
        tracker = TRACKERS[config.tracker]
        if tracker is not None and processes.is_first():
            self._sinks.append(tracker(workdir, config))  # first, as it may fail
        self._sinks += [_Lines(workdir, from_step), _TensorBoard(workdir, from_step), _Callbacks(callbacks)]

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


class _Callbacks:
    def __init__(self, functions: Sequence[Callable]):
        self._functions = functions

    def write(self, step, split, numbers):
        for function in self._functions:
            function(step, split, dict(numbers))

    def close(self):
        pass


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
