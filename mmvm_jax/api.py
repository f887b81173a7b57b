"""Python interface: train and use models on dictionaries of NumPy arrays.

    model = mmvm_jax.fit(data)
    complete = model.impute(data)

``data`` has the layout of ``mmvm_jax.data.own_data``: one array or table per modality and, optionally,
``<name>__present``, ``labels`` and ``split``; or it is MuData or AnnData. A modality without an array is absent from
all examples.
"""

import dataclasses
import operator
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from mmvm_jax.artifacts import run_folder
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.config import own_data as default_config
from mmvm_jax.data import builders, dataset_from_arrays
from mmvm_jax.data.frames import as_frames
from mmvm_jax.data.inputs import Inputs
from mmvm_jax.data.sources import as_tables, rows_of
from mmvm_jax.errors import SEED, Range, Stopped
from mmvm_jax.experiments import run
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.inference.export import export
from mmvm_jax.inference.predictor import Outputs, Predictor, joined, load_predictor
from mmvm_jax.runtime import compilation_cache, devices, object_storage, self_check
from mmvm_jax.runtime.progress import quiet_libraries
from mmvm_jax.training.step_checks import NotFinite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmvm_jax.evaluation.evaluate import Evaluation

__all__ = ["FittedModel", "default_config", "export", "fit", "load"]

_COUNT = Range(1, 10**9)  # of examples, or draws of an example


@dataclasses.dataclass(frozen=True, repr=False)
class FittedModel:
    """A trained model. ``mmvm_jax.inference.predictor.Predictor`` documents the outputs of each task.

    Attributes:
      predictor: encodes, imputes and generates.
      config: configuration of the run.
      lines: the lines of ``metrics.jsonl``; empty for an exported model.
    """

    predictor: Predictor
    config: ConfigDict
    lines: Sequence[dict] = ()

    def __repr__(self) -> str:
        modalities = self.predictor.description.modalities
        shapes = ", ".join(f"{one.name} ({one.kind} {'x'.join(map(str, one.shape))})" for one in modalities)
        steps = self.lines[-1]["step"] if self.lines else "unknown"
        return (
            f"FittedModel of {self.config.method.name}, latents of {self.config.network.latent_dim} dimensions\n"
            f"  modalities: {shapes}\n  training steps: {steps}"
        )

    @property
    def history(self) -> dict[str, dict[str, np.ndarray]]:
        """Metrics of training: {split: {"step": [K], name: [K]}}, NaN if a value is not finite.

        ``pandas.DataFrame(model.history["train"])`` makes a table of them.
        """
        splits = dict.fromkeys(line["split"] for line in self.lines)
        return {split: _columns([line for line in self.lines if line["split"] == split]) for split in splits}

    def evaluate(self, data: Mapping) -> "Evaluation":
        """Return all metrics, ``.values``, and the examples for ``figures``, as ``mmvm_jax.main`` computes them.

        Probes and classifiers learn from the training examples of ``data``; the metrics are those of its test examples.
        """
        from mmvm_jax.evaluation.evaluate import evaluate  # imported late: slow, and few need it

        description, chosen = self.predictor.description, self.config.copy_and_resolve_references()
        chosen.data.kinds = ",".join(f"{one.name}={one.kind}" for one in description.modalities)
        names = [one.name for one in description.modalities]
        dataset = dataset_from_arrays(data, chosen.data, names, description)
        return evaluate(chosen, self.predictor.trained, dataset, self.predictor.prior)

    def figures(self, evaluation: "Evaluation") -> "dict[str, Figure]":
        """Return the figures of a report by name, such as "cross_generation", "latents" and "learning_curves"."""
        from mmvm_jax.report.report import draw  # imported late: slow, and few need it

        return dict(draw(self.config, evaluation, self.predictor.description, list(self.lines)))

    def encode(self, data: Mapping) -> dict:
        """Return the latents given each modality and given all: ``<name>__mean`` [N, D], ``joint__mean`` [N, D], ...

        They are DataFrames if ``data`` has tables with an index.
        """
        return self._apply(data, self.predictor.encode)

    def impute(self, data: Mapping, num_samples: int = 20, keep_samples: bool = False, seed: int = 0) -> dict:
        """Return the data with missing values imputed, ``<name>`` [N, ...], and their uncertainty, ``<name>__std``.

        Both are DataFrames where ``data`` has DataFrames. Entries of numbers in arrays of integers are rounded.
        """
        num_samples, seed = _number("num_samples", num_samples, _COUNT), _number("seed", seed, SEED)
        return self._apply(data, lambda inputs: self.predictor.impute(inputs, num_samples, keep_samples, seed))

    def decode(self, latents: np.ndarray) -> dict[str, np.ndarray]:
        """Return the expected data, ``<name>`` [N, ...], given latents [N, D] that all decoders read.

        Raises:
          ValueError: the latents have another number of dimensions.
        """
        latents, dimensions = np.asarray(latents, np.float32), self.config.network.latent_dim
        if latents.ndim != 2 or latents.shape[1] != dimensions or not len(latents):
            raise ValueError(f"latents is {list(latents.shape)}; allowed: [N, {dimensions}]")
        return self.predictor.decode(latents)

    def generate(self, num_examples: int | None = None, given: Mapping | None = None, seed: int = 0) -> dict:
        """Generate examples, ``<name>`` [N, ...]: ``num_examples`` from the prior, or one per example of ``given``.

        Those of ``given`` are DataFrames if it has DataFrames.
        """
        if (num_examples is None) == (given is None):
            raise ValueError("generate takes either num_examples or given")
        seed = _number("seed", seed, SEED)
        if given is None:
            return joined(self.predictor.generate(_number("num_examples", num_examples, _COUNT), seed))
        return self._apply(given, lambda inputs: self.predictor.generate_given(inputs, seed))

    def _apply(self, data: Mapping, task: Callable[[Inputs], Outputs]) -> dict:
        """Return the outputs of a task, as DataFrames where ``data`` has DataFrames."""
        tables, description = as_tables(data), self.predictor.description
        outputs = joined(task(Inputs(description, rows_of(tables, description))))
        return as_frames(tables, outputs, description.columns, description.levels)


@quiet_libraries()
def fit(
    data: Mapping,
    config: ConfigDict | None = None,
    workdir: str | os.PathLike | None = None,
    callbacks: Sequence[Callable] = (),
) -> FittedModel:
    """Train a model on data in memory.

    Compiled programs are kept in the user's cache folder, like those of the commands, or in
    ``JAX_COMPILATION_CACHE_DIR``. The kind assigned to each array and the progress of training are logged to the logger
    "mmvm_jax", which ``logging.basicConfig(level="INFO")`` shows. On a terminal and in a notebook, a progress bar shows
    the progress.

    Args:
      data: arrays by name.
      config: as for the command, see ``default_config()``. Of ``config.data``, only ``kinds``, ``likelihoods``,
        ``weights``, ``memory_gb``, ``validation`` and ``missing`` are read. If None, the default, with a smaller batch
        size for few examples.
      workdir: folder of the run, local or in object storage, which ``load`` and ``mmvm_jax.infer`` can read. If it
        holds a run, training resumes. If None, nothing is kept on disk unless training fails.
      callbacks: functions (step, split, {name: value or None}), called with every line of metrics. An exception that
        one raises ends the training.

    Raises:
      UserError: the data, the configuration or the workdir cannot be used, or training failed. ``NotFinite`` names
        the folder with the last good state, which ``load`` can read and from which ``fit`` can resume.
    """
    chosen = default_config() if config is None else config.copy_and_resolve_references()
    chosen.data.name = "own_data"
    dataset = dataset_from_arrays(data, chosen.data, chosen.modalities)
    if config is None:
        chosen.train.batch_size = devices.largest_batch_size(chosen.train.batch_size, len(dataset.train.labels))
    validate(chosen)
    compilation_cache.enable(builders.data_directory(chosen.data.dir))
    self_check.check()
    if workdir is not None:
        with object_storage.local_copy(workdir, "workdir") as local:
            return _fit(chosen, dataset, local, callbacks)
    with tempfile.TemporaryDirectory(prefix="mmvm_jax_") as temporary:
        try:
            return _fit(chosen, dataset, temporary, callbacks)
        except Stopped as error:
            raise Stopped("stopped; nothing is kept, since no workdir was given") from error
        except NotFinite as error:
            kept = shutil.copytree(temporary, tempfile.mkdtemp(prefix="mmvm_jax_kept_"), dirs_exist_ok=True)
            raise NotFinite(error.step, error.terms, f"{error.details}. The workdir is {kept}") from error


def _fit(config: ConfigDict, dataset, workdir: str, callbacks: Sequence[Callable]) -> FittedModel:
    with run_folder.locked(workdir):
        run_folder.check(workdir, config)
        modalities = run_folder.check_data(workdir, config, dataset)
        dataset = dataclasses.replace(dataset, modalities=modalities)
        run.train_run(config, dataset, workdir, callbacks)
    return load(workdir)


@quiet_libraries()
def load(workdir: str | os.PathLike) -> FittedModel:
    """Load the model of a run from its workdir, or from a folder that ``export`` wrote.

    Raises:
      UserError: the folder has no run or no checkpoint, or JAX computes wrong values on this machine.
    """
    with object_storage.local_copy(workdir, "workdir") as local:
        return FittedModel(load_predictor(local), run_folder.read_config(local), read_metrics(local))


def _columns(lines: list[dict]) -> dict[str, np.ndarray]:
    """Return the numbers of some lines by name."""
    names = [name for name in lines[0] if name != "split"]
    column = lambda name: [np.nan if line.get(name) is None else line[name] for line in lines]
    return {name: np.array(column(name), int if name == "step" else float) for name in names}


def _number(name: str, value, allowed: Range) -> int:
    number = operator.index(value)  # also accepts NumPy's integers
    if not allowed.lowest <= number <= allowed.highest:
        raise ValueError(f"{name} is {number}; allowed: {allowed.allowed}")
    return number
