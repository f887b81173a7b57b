"""Training from data on disk to parameters: our loop against PyTorch fed by a DataLoader over PNG files.

    python -m benchmarks.epoch --steps=100

Ours is ``mmvm_jax.training`` on prepared data that fit in memory (the small CNN on PolyMNIST: five pictures, 60,000
digits; here random pictures of that shape, ``--examples`` of them). The peer reads the same pictures as its users keep
them, one PNG file each, with two workers. Both times are of the steps after warm-up, scaled to an epoch; reading the
prepared data into memory, once a run, stands beside them. Printed too is what our loop adds to its steps: its time
against that of the same compiled steps called back to back. The last line is the ratio of the epochs. Needs the extra
``bench`` and an idle machine.
"""

import pathlib
import tempfile
import time

import jax
import numpy as np
import torch
from absl import app, flags
from PIL import Image

from benchmarks.peers.mmvm import MMVM
from benchmarks.workloads import workload
from mmvm_jax.data.dataset import DataSet, complete_split
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.training.feeding import feed
from mmvm_jax.training.loop import train
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import make_step

_STEPS = flags.DEFINE_integer("steps", 100, "Steps that are timed.")
_EXAMPLES = flags.DEFINE_integer("examples", 12_800, "Examples on disk; an epoch counts 60,000.")
_MODALITIES = flags.DEFINE_integer("modalities", 5, "Pictures of an example.")

EPOCH, WARM_UP = 60_000, 20


def main(argv):
    del argv
    config, modalities = workload("small_cnn", _MODALITIES.value)
    data = random_data(modalities)
    model, method = make_model(modalities, config.network), make_method(config.method)
    epoch_steps = EPOCH // config.train.batch_size
    bare, loop = seconds_bare(config, model, method, data), seconds_loop(config, model, method, data)
    print(f"ours: {1e3 * bare:.1f} ms a step back to back, {1e3 * loop:.1f} ms in the loop, {loop / bare - 1:+.1%}")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(data, folder)
        state = init_state(config, model, method, first_batch(config, data))
        peer = MMVM(model, "small_cnn", state.variables)
        theirs = seconds_torch(config, peer, Pictures(folder, modalities, _EXAMPLES.value), model.latent_dim)
    print(f"an epoch: ours {epoch_steps * loop:.0f} s, torch {epoch_steps * theirs:.0f} s")
    print(f"ratio {theirs / loop:.2f}")


def random_data(modalities) -> DataSet:
    """Smooth pictures: noise would make larger PNG files than photographs do."""
    generator = np.random.default_rng(0)
    coarse = lambda: generator.integers(0, 256, (_EXAMPLES.value, 7, 7, 3), dtype=np.uint8)
    inputs = {modality.name: coarse().repeat(4, axis=1).repeat(4, axis=2) for modality in modalities}
    split = complete_split(inputs, np.zeros(_EXAMPLES.value, np.int32))
    return DataSet(modalities, split, split, 1, "none", "")


def seconds_loop(config, model, method, data) -> float:
    """A step of the whole loop, logging and saving included."""
    times = []
    for steps in (WARM_UP, WARM_UP + _STEPS.value):
        config.train.steps = steps
        with tempfile.TemporaryDirectory() as workdir:
            start = time.perf_counter()
            train(config, model, method, data, workdir)
            times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / _STEPS.value


def seconds_bare(config, model, method, data) -> float:
    """A step of the compiled program, called back to back."""
    batches = feed(data.train, config.train.batch_size, config.seed)
    state = devices.replicate(init_state(config, model, method, first_batch(config, data)))
    run = devices.data_parallel_steps(make_step(config, model, method, 1), batches.read)
    items, hyper = batches.take(10), hyper_parameters(config)
    state, *_ = jax.block_until_ready(run(state, items, batches.table, hyper, False))
    start = time.perf_counter()
    for _ in range(_STEPS.value // 10):
        state, *_ = run(state, items, batches.table, hyper, False)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / _STEPS.value


def write_pictures(data, folder) -> None:
    """One PNG file a picture, in a folder a modality."""
    for name, images in data.train.inputs.items():
        pathlib.Path(folder, name).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(pathlib.Path(folder, name, f"{number}.png"))


class Pictures(torch.utils.data.Dataset):
    """The pictures of an example, [C, H, W] each."""

    def __init__(self, folder, modalities, length):
        self._folder, self._names, self._length = folder, [m.name for m in modalities], length

    def __len__(self):
        return self._length

    def __getitem__(self, number):
        return [self._read(pathlib.Path(self._folder, name, f"{number}.png")) for name in self._names]

    def _read(self, path):
        return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255


def seconds_torch(config, peer, pictures, latent_dim) -> float:
    """A step of eager PyTorch, its batches read by two workers."""
    optimizer = torch.optim.Adam(peer.parameters(), config.optimizer.learning_rate)
    loader = torch.utils.data.DataLoader(
        pictures, config.train.batch_size, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    done = 0
    while True:
        for inputs in loader:
            if done == WARM_UP:
                start = time.perf_counter()
            optimizer.zero_grad()
            loss = peer(inputs, torch.randn(len(inputs), len(inputs[0]), latent_dim))
            loss.backward()
            optimizer.step()
            loss.item()
            done += 1
            if done == WARM_UP + _STEPS.value:
                return (time.perf_counter() - start) / _STEPS.value


if __name__ == "__main__":
    app.run(main)
