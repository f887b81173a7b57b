"""An exported model: what the folder holds, and that it does what the run's model does."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

import mmvm_jax
from mmvm_jax.errors import UserError


def data():
    """Of kinds whose networks are quickly compiled."""
    return {name: array for name, array in tiny.arrays().items() if name.startswith(("height", "spikes"))}


@pytest.fixture(scope="module", params=["mmvm", "meme"])  # the one with a fitted prior, the other with learned inputs
def folders(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    mmvm_jax.fit(data(), tiny.config(request.param), str(path / "run"))
    mmvm_jax.export(str(path / "run"), str(path / "model"))
    return path / "run", path / "model"


def assert_equal(one: dict, other: dict):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name, strict=True)


def test_it_answers_as_the_run_does(folders):
    run, exported = (mmvm_jax.load(str(folder)) for folder in folders)
    assert_equal(exported.encode(data()), run.encode(data()))
    assert_equal(exported.generate(5), run.generate(5))


def test_it_may_lie_in_object_storage(folders):
    bucket = f"memory://exported/{folders[0].parent.name}"
    mmvm_jax.export(str(folders[0]), bucket)
    assert_equal(mmvm_jax.load(bucket).encode(data()), mmvm_jax.load(str(folders[0])).encode(data()))


def test_the_folder_holds_all_that_is_needed_and_says_what_it_is(folders):
    _, exported = folders
    names = {path.name for path in exported.iterdir()}
    assert names - {"prior.npz"} == {
        "README.md", "config.json", "data.json", "environment.json", "weights.safetensors",
    }  # fmt: skip
    assert json.loads((exported / "config.json").read_text())["data"]["path"] == ""
    card, tensors = (exported / "README.md").read_text(), load_file(exported / "weights.safetensors")
    assert card.startswith("---\nlibrary_name: mmvm_jax\n")
    assert "trained for 3 steps" in card and "| `height` | vector | [3] | normal_learned_scale |" in card
    assert 'mmvm_jax.load("model")' in card and "Not evaluated." in card
    assert {name.split("/")[0] for name in tensors} - {"method", "likelihoods"} == {"encoders", "decoders"}


def test_the_card_has_what_was_measured(folders, tmp_path):
    run, _ = folders
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_text((run / name).read_text())
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    (tmp_path / "evaluation.json").write_text('{"coherence/cross_mean": 0.51234, "coherence/a_to_b": 0.2}')
    mmvm_jax.export(str(tmp_path), str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| coherence/cross_mean | 0.5123 |" in card and "a_to_b" not in card


def test_the_command_reads_it(folders):
    _, exported = folders
    output = exported.parent / "made.npz"
    flags = ("--task=generate", "--num_examples=7", f"--output={output}")
    command = [sys.executable, "-m", "mmvm_jax.infer", f"--workdir={exported}", *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert {name: array.shape for name, array in np.load(output).items()} == {"height": (7, 3), "spikes": (7, 4)}


def test_wrong_folders(folders, tmp_path):
    run, exported = folders
    with pytest.raises(UserError, match="model is not empty; use another folder"):
        mmvm_jax.export(str(run), str(exported))
    with pytest.raises(UserError, match="holds no run"):
        mmvm_jax.export(str(tmp_path), str(tmp_path / "model"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/model cannot be written"):
        mmvm_jax.export(str(run), str(tmp_path / "file" / "model"))


def test_damaged_weights_are_one_error(folders, tmp_path):
    _, exported = folders
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "weights.safetensors"
    tensors = load_file(path)
    name = min(name for name in tensors if name.endswith("kernel"))
    broken = {
        f"'{name}' is \\[1, 1\\]; allowed: \\[": tensors | {name: np.zeros((1, 1), np.float32)},
        f"cannot be read .*{name}": {other: tensor for other, tensor in tensors.items() if other != name},
    }
    for message, contents in broken.items():
        save_file(contents, path, {"step": "3"})
        with pytest.raises(UserError, match=message):
            mmvm_jax.load(str(tmp_path))
    path.write_bytes(pathlib.Path(exported / "weights.safetensors").read_bytes()[:100])
    with pytest.raises(UserError, match="allowed: what mmvm_jax.export wrote"):
        mmvm_jax.load(str(tmp_path))
