"""Workdirs in object storage, on a server of its own that speaks S3."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import s3fs
import tiny
from moto.server import ThreadedMotoServer

import mmvm_jax
from mmvm_jax.config import base
from mmvm_jax.data import builders, load_dataset, polydigits
from mmvm_jax.errors import UserError
from mmvm_jax.runtime import object_storage

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bucket():
    """The name of an empty bucket; the environment leads all clients to it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    names = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("models")
        yield "s3://models"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(object_storage, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(object_storage, "_EVERY_SECONDS", 0.1)


def test_a_folder_of_this_machine_is_itself(tmp_path):
    with object_storage.local_copy(str(tmp_path), "workdir") as folder:
        assert folder == str(tmp_path)


def test_changes_are_brought_there_and_found_again(bucket, quickly):
    url = f"{bucket}/changes"
    with object_storage.local_copy(url, "workdir") as first:
        pathlib.Path(first, "a").write_text("1")
        pathlib.Path(first, "deep").mkdir()
        pathlib.Path(first, "deep", "b").write_text("2")
        time.sleep(1.0)  # uploaded while the work continues
        with object_storage.local_copy(url, "workdir") as second:
            assert pathlib.Path(second, "deep", "b").read_text() == "2"
        pathlib.Path(first, "a").unlink()
        pathlib.Path(first, "deep", "b").write_text("22")
    assert not pathlib.Path(first).exists()
    with object_storage.local_copy(url, "workdir") as third:
        assert [path.name for path in pathlib.Path(third).rglob("*") if path.is_file()] == ["b"]
        assert pathlib.Path(third, "deep", "b").read_text() == "22"


def test_what_is_in_the_making_stays_here(bucket, quickly):
    url = f"{bucket}/making"
    with object_storage.local_copy(url, "workdir") as folder:
        pathlib.Path(folder, "8.orbax-checkpoint-tmp").mkdir()
        pathlib.Path(folder, "8.orbax-checkpoint-tmp", "a").write_text("half")
    with object_storage.local_copy(url, "workdir") as folder:
        assert not any(pathlib.Path(folder).iterdir())


def test_a_bucket_that_is_away(bucket, quickly):
    refused = pytest.raises(UserError, match=r"--workdir=s3://nowhere/a cannot be written \(.*; the files are in ")
    with refused as caught, object_storage.local_copy("s3://nowhere/a", "workdir") as folder:
        pathlib.Path(folder, "a").write_text("1")
    assert pathlib.Path(folder, "a").read_text() == "1" and folder in str(caught.value)


def test_a_server_that_is_away(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    begun = time.monotonic()
    with pytest.raises(UserError, match="--workdir=s3://models/a cannot be read"):
        object_storage.local_copy("s3://models/a", "workdir").__enter__()
    assert time.monotonic() - begun < 60
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_unknown_kind_of_storage():
    with pytest.raises(UserError, match="--workdir=abc://x/y: .*; allowed: a local folder, gs:// or s3://"):
        object_storage.local_copy("abc://x/y", "workdir").__enter__()


def test_a_folder_at_home():
    with object_storage.local_copy("~/runs", "workdir") as folder:
        assert folder == os.path.expanduser("~/runs") and "~" not in folder


def test_the_python_interface_keeps_its_run_in_a_bucket(bucket):
    few = {name: array for name, array in tiny.arrays().items() if name.startswith("height")}
    here = {name: array[few["height__present"]] for name, array in few.items()}
    fitted = mmvm_jax.fit(here, tiny.config(), f"{bucket}/api")
    loaded = mmvm_jax.load(f"{bucket}/api")
    np.testing.assert_array_equal(loaded.encode(here)["height__mean"], fitted.encode(here)["height__mean"])


def test_the_whole_path_with_the_workdir_in_a_bucket(bucket, tmp_path):
    """The run trains, resumes, says that nothing is left to do, and is read by infer."""
    np.savez(tmp_path / "data.npz", **tiny.arrays())
    main = ["mmvm_jax.main", "--config=configs/own_data.py:quicktest", f"--config.data.path={tmp_path}/data.npz"]
    main += ["--config.train.batch_size=16", "--config.evaluation.batch_size=16", "--config.network.latent_dim=3"]
    main += ["--config.modalities=('height','spikes')", f"--workdir={bucket}/run"]
    _run(*main, "--mode=train")
    assert "cannot" not in _run(*main)
    assert "Nothing left to do" in _run(*main)
    _run("mmvm_jax.infer", f"--workdir={bucket}/run", "--task=generate", f"--output={tmp_path}/made.npz")
    assert np.load(tmp_path / "made.npz")["height"].shape == (100, 3)
    with object_storage.local_copy(f"{bucket}/run", "workdir") as folder:
        assert json.loads(pathlib.Path(folder, "evaluation.json").read_text())


def test_data_are_prepared_once_for_all_machines(bucket, quickly, tmp_path, monkeypatch):
    monkeypatch.setattr(polydigits, "NUM_EXAMPLES", {"train": 40, "test": 20})
    config = base().data
    config.dir = f"{bucket}/data"
    found = []
    for machine in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        found.append(load_dataset(config))
        monkeypatch.setattr(builders, "_generate", lambda builder: pytest.fail("prepared a second time"))
    assert found[0].fingerprint == found[1].fingerprint


def test_half_of_the_data_is_no_data(bucket, quickly, tmp_path):
    url, here, there = f"{bucket}/half", tmp_path / "here", tmp_path / "there"
    with object_storage.shared_data(url, str(here), "set", "raw"):
        (here / "set" / "whole").mkdir(parents=True)
        (here / "set" / "half").mkdir()
        for name in ("whole/data", "whole/dataset_info.json", "half/data"):
            (here / "set" / name).write_text(name)
    with object_storage.shared_data(url, str(there), "set", "raw"):
        assert sorted(path.name for path in (there / "set").iterdir()) == ["whole"]
        assert (there / "set" / "whole" / "data").read_text() == "whole/data"


def test_raw_files_are_fetched_by_their_own_name(bucket, quickly, tmp_path):
    """Variants of one data set may be made of different files."""
    with object_storage.local_copy(f"{bucket}/other/downloads/manual/raw", "workdir") as folder:
        pathlib.Path(folder, "archive.zip").write_text("raw")
    with object_storage.shared_data(f"{bucket}/other", str(tmp_path / "here"), "set", "raw"):
        assert (tmp_path / "here/downloads/manual/raw/archive.zip").read_text() == "raw"


def _run(module, *flags) -> str:
    command = [sys.executable, "-m", module, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr
