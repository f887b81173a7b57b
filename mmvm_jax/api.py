"""The same as the commands, on dictionaries of numpy arrays.

    model = mmvm_jax.fit(data)
    complete = model.impute(data)

``data`` has the layout of ``mmvm_jax.data.own_data``: an array for each modality, and, where there are any,
``<name>__present``, ``labels`` and ``split``. A modality without an array is absent from all examples.
"""

import dataclasses
import operator
import os
import shutil
import tempfile
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from mmvm_jax.artifacts import run_folder
from mmvm_jax.config import own_data as default_config
from mmvm_jax.data import builders, dataset_from_arrays
from mmvm_jax.data.inputs import Inputs
from mmvm_jax.data.rows import MemoryRows
from mmvm_jax.errors import Stopped
from mmvm_jax.experiments import run
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.inference.export import export
from mmvm_jax.inference.predictor import Outputs, Predictor, load_predictor
from mmvm_jax.runtime import compilation_cache, devices, object_storage, self_check
from mmvm_jax.training.step_checks import NotFinite

__all__ = ["FittedModel", "default_config", "export", "fit", "load"]


_MOST = 10**9  # examples, or draws of one
_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class FittedModel:
    """A trained model; ``mmvm_jax.inference.predictor.Predictor`` says what each task returns."""

    predictor: Predictor

    def encode(self, data: Mapping) -> dict[str, np.ndarray]:
        """Representations of every modality and of all: ``<name>__mean`` [N, D], ``joint__mean`` [N, D], ..."""
        return _whole(self.predictor.encode(self._inputs(data)))

    def impute(
        self, data: Mapping, num_samples: int = 20, keep_samples: bool = False, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """The data with what is missing filled in, ``<name>`` [N, ...], and how sure that is, ``<name>__std``."""
        num_samples, seed = _number("num_samples", num_samples, 1, _MOST), _number("seed", seed, 0, _LARGEST_SEED)
        return _whole(self.predictor.impute(self._inputs(data), num_samples, keep_samples, seed))

    def generate(
        self, num_examples: int | None = None, given: Mapping | None = None, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """New examples, ``<name>`` [N, ...]: ``num_examples`` of them, or one for each of some ``given`` data."""
        if (num_examples is None) == (given is None):
            raise ValueError("generate takes either num_examples or given")
        seed = _number("seed", seed, 0, _LARGEST_SEED)
        if given is None:
            return _whole(self.predictor.generate(_number("num_examples", num_examples, 1, _MOST), seed))
        return _whole(self.predictor.generate_given(self._inputs(given), seed))

    def _inputs(self, data: Mapping) -> Inputs:
        return Inputs(self.predictor.description, MemoryRows(data))


def fit(data: Mapping, config: ConfigDict | None = None, workdir: str | os.PathLike | None = None) -> FittedModel:
    """Trains a model on data in memory.

    Compiled programs are kept in the user's cache folder, as by the command, or in ``JAX_COMPILATION_CACHE_DIR``.
    What each array was taken for, and how far training is, goes to the logger "mmvm_jax", on a terminal also to a
    progress bar: ``logging.basicConfig(level="INFO")`` shows it in scripts and notebooks.

    Args:
      data: arrays by name.
      config: as for the command, see ``default_config()``; ``config.data`` is read for ``kinds``, ``likelihoods``,
        ``validation`` and ``missing``. If None, the default, with smaller batches where there are few examples.
      workdir: folder of the run, here or in object storage, which goes on from what it holds, and which ``load``
        and the command ``mmvm_jax.infer`` read. If None, nothing stays on disk unless training fails.

    Raises:
      UserError: the data, the configuration or the workdir cannot be used, or training failed. A ``NotFinite`` names
        the folder with the last good state, which ``load`` reads and from which ``fit`` continues.
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
            return _fit(chosen, dataset, local)
    with tempfile.TemporaryDirectory(prefix="mmvm_jax_") as temporary:
        try:
            return _fit(chosen, dataset, temporary)
        except Stopped as error:
            raise Stopped("stopped; nothing is kept, as no workdir was given") from error
        except NotFinite as error:
            kept = shutil.copytree(temporary, tempfile.mkdtemp(prefix="mmvm_jax_kept_"), dirs_exist_ok=True)
            raise NotFinite(error.step, error.terms, f"{error.details}. The workdir is {kept}") from error


def _fit(config: ConfigDict, dataset, workdir: str) -> FittedModel:
    with run_folder.locked(workdir):
        run_folder.check(workdir, config)
        modalities = run_folder.check_data(workdir, config, dataset)
        dataset = dataclasses.replace(dataset, modalities=modalities)
        run.train_run(config, dataset, workdir)
    return load(workdir)


def load(workdir: str | os.PathLike) -> FittedModel:
    """The model of a run of ``fit`` or of the command, from its workdir alone, or of a folder that ``export`` wrote.

    Raises:
      UserError: the folder holds no run, or no checkpoint.
    """
    with object_storage.local_copy(workdir, "workdir") as local:
        return FittedModel(load_predictor(local))


def _number(name: str, value, lowest: int, highest: int) -> int:
    number = operator.index(value)  # numpy's integers too
    if not lowest <= number <= highest:
        raise ValueError(f"{name} is {number}; allowed: {lowest} to {highest}")
    return number


def _whole(blocks: Outputs) -> dict[str, np.ndarray]:
    blocks = list(blocks)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
