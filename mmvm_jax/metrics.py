"""Where numbers go: ``metrics.jsonl`` and TensorBoard event files."""

import contextlib
import json
import os

import numpy as np
from tensorboardX import SummaryWriter

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Writes scalars to ``<workdir>/metrics.jsonl``, one object a line, and to TensorBoard."""

    def __init__(self, workdir: str, from_step: int = 0):
        """Keeps what was written up to ``from_step``; later lines belong to steps that will be done again."""
        self._path = os.path.join(workdir, METRICS_FILE)
        kept = [line for line in read_metrics(workdir) if line["step"] <= from_step]
        temporary = self._path + ".new"
        with open(temporary, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        os.replace(temporary, self._path)
        self._file = open(self._path, "a")  # noqa: SIM115, closed by close
        self._tensorboard = SummaryWriter(os.path.join(workdir, "tensorboard"), purge_step=from_step + 1)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Appends one line; values that are not finite are null there, and left out of TensorBoard."""
        numbers = {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            if value is not None:
                self._tensorboard.add_scalar(f"{split}/{name}", value, step)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        """Writes what is still held back."""
        self._file.close()
        self._tensorboard.close()


def read_metrics(workdir: str) -> list[dict]:
    """All complete lines of ``metrics.jsonl``; a line cut off by a kill, or damaged, is left out."""
    path = os.path.join(workdir, METRICS_FILE)
    if not os.path.exists(path):
        return []
    lines = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and {"step", "split"} <= set(line)]
