"""Workdirs of every released version are read, resumed and recognised as finished by this one.

An archive holds the data of a run, its workdir without figures, and the encodings that its version computed. To add
one, train ``tiny.config()`` as ``config.json`` in an archive says, and remove ``figures``, ``report.html``,
``tensorboard`` and ``lock`` from the workdir.
"""

import pathlib
import tarfile

import numpy as np
import pytest

import mmvm_jax
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.artifacts.run_folder import read_config
from mmvm_jax.experiments.run import run

ARCHIVES = sorted(pathlib.Path(__file__).parent.glob("workdirs/*.tar.gz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def folder(request, tmp_path, monkeypatch):
    """The contents of an archive, as the current folder: config.data.path of the runs is relative."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arrays(path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def test_the_model_encodes_as_it_did(folder):
    encoded, expected = mmvm_jax.load("run").encode(arrays("data.npz")), arrays("expected.npz")
    assert encoded.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(encoded[name], expected[name], rtol=1e-4, atol=1e-4)


def test_the_run_is_finished_and_may_be_made_longer(folder, caplog):
    (folder / "run" / "report.html").touch()  # the last thing that a run writes
    config = read_config("run")
    with caplog.at_level("INFO", logger="mmvm_jax"):
        run(config, "run", "train_and_evaluate", "")
    assert "Nothing left to do" in caplog.text
    schedule = config.method.mmvm.anneal_alpha
    config.train.steps, schedule.fraction = 2 * config.train.steps, schedule.fraction / 2
    run(config, "run", "train", "")
    steps = [line["step"] for line in read_metrics("run") if line["split"] == "train"]
    assert steps == [2, 4, 6, 8]
