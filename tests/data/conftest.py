"""Polydigits, prepared once for all tests: whole, and in a small edition where the size does not matter."""

import importlib.util
import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest

from mmvm_jax import config
from mmvm_jax.data import load_dataset, polydigits
from mmvm_jax.evaluation import classifiers
from mmvm_jax.experiments.run import run
from mmvm_jax.runtime import devices

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def _data(directory, **changes):
    data = config.base().data
    data.update({"dir": str(directory), **changes})
    return data


@pytest.fixture(scope="session")
def full_config(tmp_path_factory):
    """The default ``config.data``, in a directory of its own."""
    return _data(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="session")
def five(full_config):
    """The plain variant with all its modalities."""
    return load_dataset(_data(full_config.dir, num_modalities=5))


@pytest.fixture(scope="session")
def small_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("small")


@pytest.fixture
def data_config(small_dir, monkeypatch):
    """The default ``config.data`` while the data set has 400 and 80 examples."""
    monkeypatch.setattr(polydigits, "NUM_EXAMPLES", {"train": 400, "test": 80})
    return _data(small_dir)


@pytest.fixture
def manual(tmp_path):
    """A function (name) -> the folder where the raw files of a data set are looked for."""

    def make(name: str):
        folder = tmp_path / "downloads" / "manual" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    return make


@pytest.fixture
def load(tmp_path):
    """A function (name, modalities, **fields) -> the data set prepared from the files in ``manual(name)``."""

    def make(name: str, modalities=(), **changes):
        dataset = load_dataset(_data(tmp_path, name=name, **changes), modalities)
        assert "tensorflow" not in sys.modules
        return dataset

    return make


@pytest.fixture
def pack():
    """A function (folder, archive name) that replaces a folder by an archive of it beside it."""

    def make(folder, archive: str):
        kind = "zip" if archive.endswith(".zip") else "gztar" if archive.endswith("gz") else "tar"
        made = shutil.make_archive(str(folder) + ".made", kind, folder.parent, folder.name)
        shutil.rmtree(folder)
        os.rename(made, folder.parent / archive)

    return make


@pytest.fixture
def quicktest(tmp_path, monkeypatch):
    """A function (name, modalities, network) that runs a data set's ``:quicktest`` on the files in ``manual(name)``.

    Some tests write but a handful of files, so batches are smaller, and steps fewer, than the variant's. One device is
    enough: four would repeat the largest networks' optimiser on the same processor. Classifiers take two steps: they
    need not be good (evaluation/test_coherence.py trains good ones).
    """
    monkeypatch.setattr(devices, "num_devices", lambda: 1)
    monkeypatch.setattr(classifiers, "_FEWEST_STEPS", 2)

    def make(name: str, modalities=(), network=None):
        spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        changed = module.get_config("quicktest")
        changed.update({"modalities": modalities, "data": {"dir": str(tmp_path)}, "evaluation": {"batch_size": 8}})
        changed.train.update({"steps": 2, "batch_size": 4})
        changed.network.name = network or changed.network.name
        run(changed, str(tmp_path / "run"), "train_and_evaluate", "a command")
        values = json.loads((tmp_path / "run" / "evaluation.json").read_text())
        assert np.isfinite(list(values.values())).all() and (tmp_path / "run" / "report.html").exists()
        return values

    return make
