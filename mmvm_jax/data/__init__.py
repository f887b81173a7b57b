"""Table of data sets by name, and the function that loads any of them."""

import dataclasses
import importlib
from collections.abc import Mapping

import numpy as np

from mmvm_jax.data import builders, missing, own_data
from mmvm_jax.data.dataset import DataSet, with_validation
from mmvm_jax.data.description import Description
from mmvm_jax.errors import unknown_name
from mmvm_jax.runtime import object_storage

# Each data set and its module, which has load(config_data, modalities=()) -> DataSet with the arguments and errors of
# ``load_dataset``. It prepares the data set if necessary. Only the requested module is imported, because the libraries
# that read the publishers' files take a second to import.
DATASETS = {
    "celeba": "celeba",
    "cub": "cub",
    "hippocampal": "hippocampal",
    "mimic_cxr": "mimic_cxr",
    "mnist_svhn": "mnist_svhn",
    "own_data": "own_data",
    "polydigits": "polydigits",
    "polymnist": "polymnist",
    "polymnist_translated": "polymnist",
    "uci_multiple_features": "uci_multiple_features",
}

INCOMPLETE_SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}


def load_dataset(config_data, modalities=()) -> DataSet:
    """Load the data set that ``config.data`` describes.

    ``config.data.validation`` sets examples aside, and ``config.data.missing`` removes entries.

    Args:
      config_data: ``config.data``.
      modalities: names of the modalities to load, in this order; all if empty.

    Raises:
      UserError: a field has an invalid value, files are missing or damaged, or the directory cannot be written.
    """
    if config_data.name not in DATASETS:
        raise unknown_name("config.data.name", config_data.name, DATASETS)
    name, directory = DATASETS[config_data.name], builders.data_directory(config_data.dir)
    module = importlib.import_module(f"{__name__}.{name}")
    with object_storage.shared_data(config_data.dir, str(directory), name, config_data.name):
        dataset = module.load(config_data, modalities)
    return _changed(dataset, config_data)


def dataset_from_arrays(arrays: Mapping, config_data, modalities=(), like: Description | None = None) -> DataSet:
    """Load a user's own data from memory; ``like`` as in ``own_data.from_arrays``, otherwise like ``load_dataset``."""
    return _changed(own_data.from_arrays(arrays, config_data, modalities, like), config_data)


def _changed(dataset: DataSet, config_data) -> DataSet:
    return _with_missing(with_validation(dataset, config_data.validation), config_data.missing)


def _with_missing(dataset: DataSet, config) -> DataSet:
    if config.split not in INCOMPLETE_SPLITS:
        raise unknown_name("config.data.missing.split", config.split, INCOMPLETE_SPLITS)
    names = [modality.name for modality in dataset.modalities]
    row = None
    if config.pattern == "one_modality":
        if config.modality not in names:
            raise unknown_name("config.data.missing.modality", config.modality, names)
        row = names.index(config.modality)
    changed = {}
    for stream, split_name in enumerate(("train", "test")):
        if split_name in INCOMPLETE_SPLITS[config.split]:
            split = getattr(dataset, split_name)
            kept = split.present & missing.draw_presence(
                config.pattern, config.rate, len(names), len(split.labels), [config.seed, stream], row
            )
            # An example that would lose all its modalities keeps them.
            changed[split_name] = split._replace(present=np.where(kept.any(axis=0), kept, split.present))
    return dataclasses.replace(dataset, **changed)
