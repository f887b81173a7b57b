"""Data larger than memory: how fast they are prepared and read, and the memory that this and training take.

    python -m benchmarks.streaming --folder=faces --examples=200000

Writes a synthetic CelebA into the folder, in the published layout, as many examples as asked for and nine tenths of
them for training; prepares it; reads batches of 256 in random order, once from memory and once from the disk; and
trains the steps of ``configs/celeba.py:quicktest`` from the disk. Each phase runs in a process of its own, whose peak
resident memory is printed. About 25 kB of disk an example; the folder is left to you.
"""

import io
import pathlib
import resource
import subprocess
import sys
import time
import zipfile

import numpy as np
import skimage.data
from absl import app, flags, logging
from PIL import Image

PHASES = ("write", "prepare", "read_memory", "read_disk", "train")
PICTURES = 64  # different ones
_WIDTH, _HEIGHT = 178, 218  # of CelebA's aligned pictures
_SECONDS = 15  # of reading

_FOLDER = flags.DEFINE_string("folder", None, "Where raw and prepared files go.", required=True)
_EXAMPLES = flags.DEFINE_integer("examples", 200_000, "How many.")
_PHASES = flags.DEFINE_list("phases", list(PHASES), "Which to run, in this order.")
_ALONE = flags.DEFINE_bool("alone", False, "Runs the one phase in this process.")


def main(argv):
    logging.set_verbosity(logging.WARNING)
    if _ALONE.value:
        print(f"{_PHASES.value[0]}: {_run(_PHASES.value[0])}, peak memory {_peak_memory():.2f} GB", flush=True)
        return
    for phase in _PHASES.value:
        same = (f"--folder={_FOLDER.value}", f"--examples={_EXAMPLES.value}")
        command = [sys.executable, "-m", "benchmarks.streaming", *same, f"--phases={phase}", "--alone"]
        subprocess.run(command, check=True)


def _peak_memory() -> float:
    """Of this process, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _run(phase: str) -> str:
    start = time.perf_counter()
    if phase == "write":
        write_raw_files(pathlib.Path(_FOLDER.value), _EXAMPLES.value)
    elif phase == "train":
        return _train()
    else:
        data = _load(memory_gb=100.0 if phase == "read_memory" else 0.0)
        if phase != "prepare":
            return f"opened in {time.perf_counter() - start:.1f} s, {_read_rate(data.train):,.0f} examples/s"
    seconds = time.perf_counter() - start
    return f"{seconds:.1f} s, {_EXAMPLES.value / seconds:,.0f} examples/s"


def write_raw_files(folder: pathlib.Path, count: int) -> None:
    """A CelebA of that many examples: crops of one photograph, and each attribute at random in a fifth of them."""
    folder = folder / "downloads" / "manual" / "celeba"
    folder.mkdir(parents=True, exist_ok=True)
    names, pictures = [f"{number:06d}.jpg" for number in range(1, count + 1)], _pictures()
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"img_align_celeba/{name}", pictures[number % PICTURES])
    has = np.where(np.random.default_rng(0).random((count, 40)) < 0.2, "1", "-1")
    rows = [f"{name} {' '.join(row)}\n" for name, row in zip(names, has)]
    header = f"{count}\n{' '.join(f'Attribute_{number}' for number in range(40))}\n"
    (folder / "list_attr_celeba.txt").write_text(header + "".join(rows))
    partition = [f"{name} {0 if number < 0.9 * count else 2}\n" for number, name in enumerate(names)]
    (folder / "list_eval_partition.txt").write_text("".join(partition))


def _pictures() -> list[bytes]:
    photograph, encoded = Image.fromarray(skimage.data.astronaut()), []
    for shift in range(PICTURES):
        stream = io.BytesIO()
        photograph.crop((shift, shift, shift + _WIDTH, shift + _HEIGHT)).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return encoded


def _load(memory_gb: float):
    from mmvm_jax.config import base
    from mmvm_jax.data import load_dataset

    data = base().data
    data.update({"name": "celeba", "dir": _FOLDER.value, "memory_gb": memory_gb})
    return load_dataset(data)


def _read_rate(split) -> float:
    """Examples a second of batches as training draws them."""
    from mmvm_jax.data.batches import Batches

    batches = Batches(split, 256, 0)
    next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < _SECONDS:
        count += len(next(batches).index)
    return count / (time.perf_counter() - start)


def _train() -> str:
    from configs import celeba
    from mmvm_jax.artifacts import run_folder
    from mmvm_jax.models.model import make_model
    from mmvm_jax.objectives.method import make_method
    from mmvm_jax.training.loop import train

    config, workdir = celeba.get_config("quicktest"), str(pathlib.Path(_FOLDER.value) / "run")
    config.data.update({"dir": _FOLDER.value, "memory_gb": 0.0})
    data = _load(memory_gb=0.0)
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    run_folder.check(workdir, config)
    run_folder.record(workdir, config, data)
    start = time.perf_counter()
    train(config, model, method, data, workdir)
    seconds = time.perf_counter() - start
    return f"{config.train.steps} steps of {config.train.batch_size} in {seconds:.1f} s, compilation included"


if __name__ == "__main__":
    app.run(main)
