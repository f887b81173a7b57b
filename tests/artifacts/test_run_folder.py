"""The folder of a run: one run at a time works there, and files of it that are damaged are named with their repair."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax.artifacts import run_folder
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.data import load_dataset, polydigits
from mmvm_jax.errors import UserError
from mmvm_jax.evaluation import classifiers
from mmvm_jax.inference.prior import read_prior
from mmvm_jax.runtime.files import write_bytes

HOLD = """import sys; from mmvm_jax.artifacts.run_folder import locked
with locked(sys.argv[1]): print('held', flush=True); input()"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a run of three steps, which no test changes."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    mmvm_jax.fit(tiny.arrays(), tiny.config(), str(folder))
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it to be damaged."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable()
    return str(caught.value)


# One run at a time.


def test_a_second_run_is_refused_while_the_first_lives(run):
    first = subprocess.Popen([sys.executable, "-c", HOLD, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"held\n"
        message = f"--workdir={run}: another run is working there; wait for it, or use another folder"
        assert refused(mmvm_jax.fit, tiny.arrays(), tiny.config(), str(run)) == message
        assert mmvm_jax.load(str(run)).generate(1)["height"].shape == (1, 3)  # who only reads needs not wait
        second = subprocess.run(
            [sys.executable, "-m", "mmvm_jax.main", "--config=configs/polydigits.py:quicktest", f"--workdir={run}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (second.returncode, second.stderr) == (2, f"mmvm_jax: error: {message}\n")
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with run_folder.locked(str(run)):  # death gave it back
        pass


def test_a_folder_that_cannot_be_locked_is_used_all_the_same(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_folder.fcntl, "flock", flock)
    with caplog.at_level("WARNING", logger="mmvm_jax"), run_folder.locked(str(tmp_path)):
        assert "cannot be locked (Function not implemented)" in caplog.text


# Damaged files.

GARBAGE = [b"", b"{", b"null", b"[]", b"3", b'"text"', b"{}", b"\xff\xfe\x00", b'{"a": 1, "a": }']


@pytest.mark.parametrize("content", GARBAGE)
def test_a_damaged_configuration_is_restored_from_a_checkpoint(run, content):
    path = run / "config.json"
    whole = json.loads(path.read_text())
    path.write_bytes(content)
    if content != b"{}":  # which says nothing of the modalities' names, but is a configuration of a version of old
        message = refused(mmvm_jax.load, str(run))
        assert message.startswith(f"{path} is damaged (")
        subprocess.run(shlex.split(re.search(r"restore it: (cp .*)$", message)[1]), check=True)
        assert json.loads(path.read_text()) == whole
        path.write_bytes(content)
    message = refused(mmvm_jax.fit, tiny.arrays(), tiny.config(), str(run))
    assert message.startswith(f"{path} is damaged (")
    subprocess.run(shlex.split(re.search(r"restore it: (cp .*)$", message)[1]), check=True)
    mmvm_jax.fit(tiny.arrays(), tiny.config(), str(run))


def test_a_damaged_configuration_without_a_checkpoint(run):
    shutil.rmtree(run / "checkpoints")
    (run / "config.json").write_text("{")
    assert refused(mmvm_jax.load, str(run)).endswith("use another folder")


@pytest.mark.parametrize("content", GARBAGE)
def test_a_damaged_description(run, content):
    (run / "data.json").write_bytes(content)
    message = refused(mmvm_jax.load, str(run))
    assert message.startswith(f"{run}/data.json is damaged (") and "mmvm_jax.main --mode=evaluate" in message


def test_every_part_of_a_description_is_needed(run):
    whole = json.loads((run / "data.json").read_text())
    for part in whole.keys() - {"columns", "levels"}:  # of which earlier versions knew nothing
        (run / "data.json").write_text(json.dumps({name: value for name, value in whole.items() if name != part}))
        assert f"{run}/data.json is damaged (" in refused(mmvm_jax.load, str(run))


def test_a_run_of_a_version_with_fewer_fields_is_read(run):
    values = json.loads((run / "config.json").read_text())
    del values["precision"], values["train"]["skip_not_finite"]
    (run / "config.json").write_text(json.dumps(values))
    assert mmvm_jax.load(str(run)).generate(1)["height"].shape == (1, 3)


def test_a_run_of_a_version_with_fewer_fields_may_be_resumed(run):
    values = json.loads((run / "config.json").read_text())
    config = run_folder.read_config(str(run))
    del values["data"]["validation"], values["method"]["mvtcae"], values["precision"]
    (run / "config.json").write_text(json.dumps(values))
    assert run_folder.check(str(run), config)
    config.precision = "bfloat16"
    assert "holds a run of another configuration" in refused(run_folder.check, str(run), config)


def _changed(run, **fields) -> str:
    """Return the error for a run in the same folder whose configuration has these fields."""
    config = run_folder.read_config(str(run))
    for field, value in fields.items():
        *path, last = field.split("__")
        part = config
        for name in path:
            part = part[name]
        part[last] = value
    return refused(run_folder.check, str(run), config)


def test_an_optimiser_with_another_state_is_refused(run):
    assert '-optimizer structure = "adam"' in _changed(run, optimizer__name="sgd").replace("config.", "")
    assert "adam with plateau" in _changed(run, optimizer__schedule__name="plateau")


def test_a_schedule_that_depends_on_the_length_is_named_if_the_length_changes(run, caplog):
    config = run_folder.read_config(str(run))
    config.optimizer.schedule.name = "cosine"
    (run / "config.json").write_text(run_folder.config_text(config))
    config.train.steps, config.method.mmvm.anneal_alpha.fraction = 6, 0.15
    with caplog.at_level("WARNING", logger="mmvm_jax"):
        assert not run_folder.check(str(run), config)
    assert '-config.optimizer.schedule.length of training = "3 steps"' in caplog.text


def test_beta_is_annealed_to_the_same_step(run):
    assert "+config.method.anneal_beta.shape" in _changed(run, method__anneal_beta__shape="linear")
    config = run_folder.read_config(str(run))
    config.method.anneal_beta.update({"shape": "linear", "steps": 2})
    (run / "config.json").write_text(run_folder.config_text(config))
    config.train.steps, config.method.mmvm.anneal_alpha.fraction = 6, 0.15
    assert not run_folder.check(str(run), config)
    config.method.anneal_beta.update({"steps": 0, "fraction": 0.5, "cycles": 2})
    assert '+config.method.anneal_beta.period = "3 steps"' in refused(run_folder.check, str(run), config)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", "half", "objects", "incomplete", "scalar"])
def test_a_damaged_prior_is_named_and_not_used(run, content, caplog):
    path = run / "prior.npz"
    whole = path.read_bytes()
    if content == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "objects":
        np.savez(path, step=3, mean=np.array([{}], object))
    elif content == "incomplete":
        np.savez(path, step=3)
    elif content == "scalar":
        path.write_bytes(b"")
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(content)
    with caplog.at_level("WARNING", logger="mmvm_jax"):
        model = mmvm_jax.load(str(run))
    assert f"{path} is damaged (" in caplog.text and "fit it again: mmvm_jax.main --mode=evaluate" in caplog.text
    assert "to fit one, run mmvm_jax.main --mode=evaluate" in refused(model.generate, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": "b"}', b'{"a": null}'])
def test_a_damaged_evaluation(run, content, tmp_path):
    (run / "evaluation.json").write_bytes(content)
    message = refused(mmvm_jax.export, str(run), str(tmp_path / "model"))
    assert message.startswith(f"{run}/evaluation.json is damaged (") and "--mode=evaluate" in message


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      ", "half", "other"])
def test_damaged_weights(run, content, tmp_path):
    folder = tmp_path / "model"
    mmvm_jax.export(str(run), str(folder))
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    if content == "other":
        config = json.loads((folder / "config.json").read_text())
        config["network"]["latent_dim"] = 5
        (folder / "config.json").write_text(json.dumps(config))
    else:
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert refused(mmvm_jax.load, str(folder)).startswith(str(path))


@pytest.mark.parametrize("line", [b"3", b"[]", b"null", b"{}", b'{"step": 1', b"\xff\xfe", b'{"split": "train"}'])
def test_damaged_lines_of_metrics_are_left_out(run, line):
    before = read_metrics(str(run))
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(line + b"\n")
    assert read_metrics(str(run)) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's, of reads it gave up
@pytest.mark.parametrize("field", ["latent_dim", "method"])
def test_checkpoints_of_another_model(run, field):
    values = json.loads((run / "config.json").read_text())
    if field == "method":
        values["method"]["name"] = "meme"
    else:
        values["network"]["latent_dim"] = 5
    (run / "config.json").write_text(json.dumps(values))
    assert "no checkpoint there fits this version and model; use another --workdir" in refused(mmvm_jax.load, str(run))


# What is kept for all runs.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The ``config.data`` of polydigits with a few examples, prepared."""
    config = mmvm_jax.default_config().data
    config.update({"name": "polydigits", "dir": str(tmp_path_factory.mktemp("prepared"))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polydigits, "NUM_EXAMPLES", {"train": 40, "test": 8})
        load_dataset(config)
        yield config


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove"])
@pytest.mark.parametrize(
    "file", ["dataset_info.json", "polydigits-train.array_record*", "polydigits-test.array_record*"]
)
def test_damaged_prepared_data(prepared, file, damage):
    config = prepared
    (path,) = pathlib.Path(config.dir).rglob(file)
    whole = path.read_bytes()
    try:
        path.unlink()
        if damage != "remove":
            path.write_bytes(whole[: len(whole) // 2] if damage == "truncate" else b"")
        message = refused(load_dataset, config)
        assert re.match(rf"{config.dir}/polydigits/plain\S* is damaged \(", message)
        assert re.search(rf"to prepare it: rm -r {config.dir}/polydigits/plain\S*$", message)
    finally:
        path.write_bytes(whole)


def test_a_damaged_classifier_is_trained_again(tmp_path, caplog):
    variables = {"a": {"kernel": np.ones(3, np.float32)}}
    path = str(tmp_path / "a.msgpack")
    whole = classifiers.flax.serialization.to_bytes(variables["a"])
    for content in (b"", b"text", whole[:-4], whole):
        write_bytes(path, content)
        kept = classifiers._read({"a": path}, variables)
        assert kept == ({"a": whole} if content == whole else {})
    assert caplog.text.count(f"{path} is damaged (") == 3


def test_the_prior_is_read_as_it_was_written(run):
    with np.load(run / "prior.npz") as arrays:
        prior = read_prior(str(run), 3, 3)
        assert all((arrays[name] == value).all() for name, value in prior._asdict().items())
    assert read_prior(str(run), 4, 3) is None and os.path.exists(run / "prior.npz")


def test_a_run_of_a_version_without_rates_goes_on_from_where_its_decoders_started(run, tmp_path):
    config, data = tiny.config(), mmvm_jax.data.dataset_from_arrays(tiny.arrays(), tiny.config().data)
    assert run_folder.check_data(str(run), config, data) == data.modalities
    path = run / run_folder.DATA_FILE
    text = json.loads(path.read_text())
    for modality in text["modalities"]:
        del modality["rates"]
    path.write_text(json.dumps(text))
    earlier = {modality.name: modality for modality in run_folder.check_data(str(run), config, data)}["spikes"]
    assert earlier.rates == () and earlier.scale == {m.name: m for m in data.modalities}["spikes"].scale


def test_a_prior_that_was_fitted_to_means_is_not_used(run, caplog):
    """Earlier versions did so, and noted nothing."""
    path = run / "prior.npz"
    whole = path.read_bytes()
    with np.load(path) as arrays:
        contents = {name: arrays[name] for name in arrays if name != "fitted_to"}
    try:
        np.savez(path, **contents)
        assert read_prior(str(run), 3, 3) is None and not caplog.text
    finally:
        path.write_bytes(whole)
    assert read_prior(str(run), 3, 3) is not None
