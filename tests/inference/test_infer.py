"""The command that uses a trained model: what it reads, writes and refuses."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax.data.rows import NpzRows, write_npz
from mmvm_jax.errors import RESTART, UserError

NAMES = ("height", "spikes")


def data():
    return {name: array for name, array in tiny.arrays().items() if name.startswith(NAMES)} | {
        f"{NAMES[0]}__present": np.arange(tiny.N) % 2 == 0,
        f"{NAMES[1]}__present": np.arange(tiny.N) % 3 > 0,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run, and a file with more examples than a batch."""
    path = tmp_path_factory.mktemp("infer")
    mmvm_jax.fit(data(), tiny.config("joint"), str(path / "run"))
    arrays = data()
    arrays["height__present"] |= ~arrays["spikes__present"]  # every example has something
    arrays["height"] = np.asfortranarray(arrays["height"])
    np.savez_compressed(path / "in.npz", **arrays, labels=np.zeros(tiny.N))
    return path


def infer(folder, *flags):
    paths = (f"--workdir={folder / 'run'}", f"--output={folder / 'out.npz'}")
    command = [sys.executable, "-m", "mmvm_jax.infer", *paths, *flags]
    one_device = os.environ | {"XLA_FLAGS": ""}  # where the tests, which train the model, have four
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_device)


def contents(path) -> dict:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_a_folder_of_tables_gives_a_folder_of_tables(tmp_path):
    import pandas as pd  # here, since other tests of this file run without it (tests/versions.py)

    patients = [f"patient{number}" for number in range(tiny.N)]
    labs = pd.DataFrame(np.random.default_rng(0).normal(size=(tiny.N, 2)), patients, ["sodium", "potassium"])
    visits = pd.DataFrame({"visits": np.arange(40) % 4, "stays": np.arange(40) % 3}, patients[20:])
    model = mmvm_jax.fit({"labs": labs, "visits": visits}, tiny.config("joint"), tmp_path / "run")
    (tmp_path / "given").mkdir()
    labs.to_parquet(tmp_path / "given" / "labs.parquet")
    done = infer(
        tmp_path, "--task=impute", "--num_samples=3", f"--input={tmp_path}/given", f"--output={tmp_path}/filled/"
    )
    assert done.returncode == 0, done.stderr
    expected = model.impute({"labs": labs}, num_samples=3)
    assert {path.name for path in (tmp_path / "filled").iterdir()} == {f"{name}.parquet" for name in expected}
    for name, table in expected.items():
        written = pd.read_parquet(tmp_path / "filled" / f"{name}.parquet")
        pd.testing.assert_frame_equal(written, table, rtol=1e-4, atol=1e-5)
    assert list(written.index) == patients


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        (("--task=encode",), lambda model, data: model.encode(data)),
        (
            ("--task=impute", "--num_samples=3", "--keep_samples", "--seed=5"),
            lambda model, data: model.impute(data, num_samples=3, keep_samples=True, seed=5),
        ),
        (
            ("--task=generate", "--given=height"),
            lambda model, data: model.generate(given={n: a for n, a in data.items() if n.startswith("height")}),
        ),
    ],
    ids=["encode", "impute", "given"],
)
def test_the_command_gives_what_the_interface_gives(folder, flags, answer):
    given = contents(folder / "in.npz")
    if "--given=height" in flags:  # of which every example needs one
        given["height__present"] = np.ones(tiny.N, bool)
        np.savez(folder / "given.npz", **given)
        result = infer(folder, f"--input={folder / 'given.npz'}", *flags)
    else:
        result = infer(folder, f"--input={folder / 'in.npz'}", *flags)
    assert result.returncode == 0, result.stderr
    assert f"{tiny.N}/{tiny.N} examples" in result.stderr
    expected, actual = answer(mmvm_jax.load(str(folder / "run")), given), contents(folder / "out.npz")
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_allclose(actual[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
    assert not list(folder.glob(".mmvm_jax_*"))


def test_generation_needs_no_input(folder):
    result = infer(folder, "--task=generate", "--num_examples=37")
    assert result.returncode == 0, result.stderr
    shapes = {name: array.shape for name, array in contents(folder / "out.npz").items()}
    assert shapes == {"height": (37, 3), "spikes": (37, 4)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--task=guess",), "--task=guess"),
        ((), "--workdir, --task and --output are needed"),
        (("--task=impute",), "--task=impute needs --input"),
        (("--task=generate", "--given=height"), "--given and --input together"),
        (("--task=impute", "--num_samples=0"), "num_samples"),
        (("--task=encode", "in.npz"), "'in.npz' is not a flag"),
        (("--task=encode", "--input=nothing.npz"), "--input is 'nothing.npz': no such file"),
        (("--task=encode", "--workdir=nowhere", "--input={folder}/in.npz"), "--workdir=nowhere holds no run"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(folder, flags, message):
    result = infer(folder, *(flag.format(folder=folder) for flag in flags))
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr, result.stderr


def test_a_run_without_a_checkpoint(folder, tmp_path):
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_text((folder / "run" / name).read_text())
    with pytest.raises(UserError, match="holds no checkpoint; train first"):
        mmvm_jax.load(str(tmp_path))


def test_an_interrupt_leaves_nothing_half_written(folder, tmp_path):
    """A file so long that work has begun before it could end."""
    long = {
        name: np.tile(array, (400, *(1,) * (array.ndim - 1))) for name, array in contents(folder / "in.npz").items()
    }
    np.savez(tmp_path / "in.npz", **{n: a for n, a in long.items() if n.startswith(NAMES)})
    flags = (f"--workdir={folder / 'run'}", f"--input={tmp_path / 'in.npz'}", f"--output={tmp_path / 'out.npz'}")
    command = [sys.executable, "-m", "mmvm_jax.infer", "--task=impute", "--num_samples=1000", "--keep_samples", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".mmvm_jax_*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == RESTART
    assert errors.splitlines()[-1].endswith("stopped; nothing was written")
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_a_file_are_read_in_blocks(save, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "plain": rng.normal(size=(10, 3)),
        "columns": np.asfortranarray(rng.normal(size=(10, 4, 2))),
        "pixels": rng.integers(0, 255, (10, 2, 2), np.uint8),
        "swapped": rng.normal(size=(10, 2)).astype(">f4"),
    }
    save(tmp_path / "x.npz", **arrays)
    rows = NpzRows(str(tmp_path / "x.npz"), "--input")
    blocks = list(rows.blocks(list(arrays), 4, 10))
    assert [len(block["plain"]) for block in blocks] == [4, 4, 2]
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.concatenate([block[name] for block in blocks]), array)
        np.testing.assert_array_equal(rows.read(name), array)


def test_a_damaged_file_is_one_error(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((10_000, 3)))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:20_000] + b"\1" * 20 + whole[20_020:])
    rows = NpzRows(str(tmp_path / "x.npz"), "--input")
    with pytest.raises(UserError, match="array 'a' cannot be read .*CRC"):
        list(rows.blocks(["a"], 400, 10_000))
    (tmp_path / "x.npz").write_bytes(whole[:200])
    with pytest.raises(UserError, match="--input is '.*x.npz': not an .npz file"):
        NpzRows(str(tmp_path / "x.npz"), "--input")


def test_an_output_is_written_as_a_whole_or_not_at_all(tmp_path):
    def blocks():
        yield {"a": np.zeros((4, 2), np.float32)}
        raise UserError("the second block is wrong")

    with pytest.raises(UserError, match="the second block"):
        write_npz(str(tmp_path / "out.npz"), blocks(), 8)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="nowhere/out.npz cannot be written"):
        write_npz(str(tmp_path / "nowhere" / "out.npz"), blocks(), 8)


def test_a_large_file_is_not_read_at_once(tmp_path):
    write_npz(str(tmp_path / "x.npz"), ({"a": np.zeros((1000, 50), np.float32)} for _ in range(100)), 100_000)
    tracemalloc.start()
    rows = NpzRows(str(tmp_path / "x.npz"), "--input")
    write_npz(str(tmp_path / "y.npz"), rows.blocks(["a"], 500, 100_000), 100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000 < 100_000 * 50 * 4
