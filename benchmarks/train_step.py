"""A whole training step against PyTorch: the same networks, weights, data, batch and optimiser on one machine.

    python -m benchmarks.train_step --what=polymnist_resnet --modalities=3 --batch=32

Ours are the steps of ``mmvm_jax.training`` under the data set's configuration, ten in one program. The peer is PyTorch
code as it usually is, one network after the other, eager and through ``torch.compile``; both are first shown to give
the same loss from the same weights, inputs and noise, then timed in turn. The last line is the ratio of our examples/s
to those of the better peer: median, minimum and maximum over the rounds. Wants an idle machine: PyTorch's threads wait
actively for each other and stall if disturbed. Needs the extra ``bench``.
"""

import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.measure import STEPS
from benchmarks.peers import PEERS
from benchmarks.peers.mmvm import MMVM, to_torch
from benchmarks.workloads import random_batch, workload
from mmvm_jax.data.dataset import complete_split
from mmvm_jax.distributions import sample
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.objectives.noise import modality_keys
from mmvm_jax.runtime import devices
from mmvm_jax.training.feeding import Resident
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import init_state
from mmvm_jax.training.step import make_step
from mmvm_jax.types import DiagonalGaussian

_WHAT = flags.DEFINE_enum("what", "small_cnn", list(PEERS), "Which networks.")
_MODALITIES = flags.DEFINE_integer("modalities", 0, "Number of modalities; 0 for those of the data set.")
_BATCH = flags.DEFINE_integer("batch", 128, "Examples in a batch.")
_ROUNDS = flags.DEFINE_integer("rounds", 10, "Repetitions that are timed.")
_DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where both run.")


def main(argv):
    del argv
    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,cpu"}[_DEVICE.value])
    torch.set_float32_matmul_precision("high")  # on a GPU both multiply float32 as TF32; on a CPU neither does
    config, modalities = workload(_WHAT.value, _MODALITIES.value)
    model, method = make_model(modalities, config.network), make_method(config.method)
    batch = random_batch(modalities, _BATCH.value)
    state = init_state(config, model, method, batch)
    peer = MMVM(model, _WHAT.value, state.variables)
    ours, theirs = first_losses(config, model, method, batch, state, peer)
    print(f"loss of the first batch: jax {ours:.4f}, torch {theirs:.4f}")
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    peer.to(_torch_device())
    inputs = [tensor.to(_torch_device()) for tensor in torch_inputs(model, batch)]
    noise_shape = (len(modalities), _BATCH.value, model.latent_dim)
    peers = {name: torch_steps(config, peer, loss, inputs, noise_shape) for name, loss in torch_losses(peer).items()}
    gflop = count_gflop(peers["torch eager"])
    steps = first_steps({"jax": jax_steps(config, model, method, batch, state), **peers})
    memory = {name: measure.peak_megabytes(step) for name, step in steps.items()}
    report(measure.time_in_turn(steps, _ROUNDS.value), memory, gflop)


def first_losses(config, model, method, batch, state, peer) -> tuple[float, float]:
    """Loss of the first batch, ours and the peer's: without dropout, as in evaluation, from the same noise."""
    key, prepared = jax.random.key(7), model.prepare(batch)

    def loss(variables):
        functions = model.bind(variables)
        return method.loss(key, prepared, functions, hyper_parameters(config)).loss.mean()

    latent_key, *_ = jax.random.split(key, 3)  # as the objective does
    keys = modality_keys(latent_key, batch.index, model.bind(state.variables).identifiers)
    zeros = jnp.zeros((*keys.shape, model.latent_dim))
    noise = sample(keys, DiagonalGaussian(zeros, zeros))
    ours = float(jax.jit(loss)(state.variables))
    with torch.no_grad():
        theirs = float(peer.eval()(torch_inputs(model, batch), torch.tensor(np.asarray(noise))))
    peer.train()
    return ours, theirs


def torch_inputs(model, batch) -> list[torch.Tensor]:
    """The batch as a PyTorch user holds it: prepared once, before training."""
    inputs = model.prepare(batch).inputs
    return [to_torch(modality, inputs[modality.name]) for modality in model.modalities]


def jax_steps(config, model, method, batch, state) -> Callable:
    """Our steps, without arguments: as in training, in one program on examples that lie on the device."""
    split = complete_split(batch.inputs, batch.labels)
    step = make_step(config, model, method, 1_000_000)
    run_steps, table = devices.data_parallel_steps(step, Resident.read), Resident.place(split)
    hyper, carry = hyper_parameters(config), [devices.replicate(state)]

    def run():
        carry[0], metrics, _ = run_steps(carry[0], [batch.index] * STEPS, table, hyper, False)
        jax.block_until_ready(metrics)

    return run


def torch_losses(peer) -> dict[str, Callable]:
    return {"torch eager": peer, "torch.compile": torch.compile(peer)}


def torch_steps(config, peer, loss, inputs, noise_shape) -> Callable:
    """The peer's steps, without arguments."""
    optimizer = torch.optim.Adam(peer.parameters(), config.optimizer.learning_rate)

    def run(count=STEPS):
        for _ in range(count):
            noise = torch.randn(noise_shape, device=inputs[0].device)
            optimizer.zero_grad()
            value = loss(inputs, noise)
            value.backward()
            optimizer.step()
        value.item()

    return run


def _torch_device() -> str:
    return {"cpu": "cpu", "gpu": "cuda"}[_DEVICE.value]


def count_gflop(step) -> float:
    """Matrix products and convolutions of a step, forward and backward, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        step(count=1)
    return counter.get_total_flops() / 1e9


def first_steps(steps) -> dict[str, Callable]:
    """The steps that work, each called once; prints how long that took."""
    working = {}
    for name, step in steps.items():
        try:
            print(f"{name}: first {STEPS} steps in {measure.first_call(step):.1f} s", flush=True)
        except torch._dynamo.exc.TorchDynamoException as error:
            print(f"{name} does not work here: {error}")
        else:
            working[name] = step
    return working


def report(seconds, memory, gflop):
    """Prints what every step reached, and the ratio."""
    peak = measure.matrix_peak()
    print(f"{gflop:.1f} GFLOP a step; a matrix product of side 2048 reaches {peak:.0f} GFLOP/s")
    for name, times in seconds.items():
        middle, fastest = statistics.median(times) / STEPS, min(times) / STEPS
        print(
            f"{name:14} {_BATCH.value / middle:7.0f} examples/s  {gflop / middle:5.0f} GFLOP/s  "
            f"median {1e3 * middle:.1f} ms, fastest {1e3 * fastest:.1f} ms, peak {memory[name]:.0f} MB"
        )
    best = min(seconds.keys() - {"jax"}, key=lambda name: statistics.median(seconds[name]))
    ratios = [theirs / ours for ours, theirs in zip(seconds["jax"], seconds[best])]
    print(f"ratio {statistics.median(ratios):.2f} {min(ratios):.2f} {max(ratios):.2f}")


if __name__ == "__main__":
    app.run(main)
