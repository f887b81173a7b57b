"""What a step of every configuration computes and sends, counted, and how long it would take on many chips, computed.

    python -m benchmarks.chips

Counted from the program before it is compiled: parameters, operations of an example, bytes that all devices add up
in a step. The second table is a model, not a measurement: operations at ``UTILISATION`` of the published peak, and a
ring all-reduce over the published bandwidth of the slowest link, one after the other.
"""

import importlib
import math
import os
import re
from typing import NamedTuple
from unittest import mock

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
from absl import app

from benchmarks.workloads import CUB, random_batch
from mmvm_jax.data import celeba, hippocampal, mimic_cxr, mnist_svhn, uci_multiple_features
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import init_state
from mmvm_jax.training.step import make_step
from mmvm_jax.types import Batch, Modality

CHIPS, PER_CHIP, UTILISATION = (8, 64, 256), (16, 128), 0.4
_PICTURES = tuple(Modality(f"m{m}", (28, 28, 3), "image", "laplace", scale=0.75) for m in range(5))
MODALITIES = {
    "polydigits": _PICTURES[:3],
    "polymnist": _PICTURES,
    "mnist_svhn": mnist_svhn.MODALITIES,
    "cub": CUB,
    "celeba": celeba.MODALITIES,
    "hippocampal": hippocampal.MODALITIES,
    "mimic_cxr": mimic_cxr.MODALITIES,
    "uci_multiple_features": uci_multiple_features.MODALITIES,
}
MODELLED = ("polymnist", "mimic_cxr")


class Chip(NamedTuple):
    """Published figures of one accelerator."""

    name: str
    flops: float  # of bfloat16 matrix products, a second
    bandwidth: float  # bytes a second into a chip, over the slowest link of the ring


# TPU v5e: 197 TFLOP/s and 1,600 Gbit/s of interconnect a chip; H100 SXM: 989 TFLOP/s, 400 Gbit/s of InfiniBand a GPU.
KINDS = (Chip("TPU v5e", 197e12, 200e9), Chip("H100, InfiniBand", 989e12, 50e9))


class Cost(NamedTuple):
    """What a step takes, whatever runs it."""

    parameters: int
    flops: float  # of an example
    bytes: int  # that all devices add up
    batch_size: int


def main(argv):
    """Prints both tables as Markdown."""
    del argv
    costs = {name: count(name) for name in MODALITIES}
    print("| config | parameters | GFLOP an example | MB all-reduced a step | batch size |\n|---|---|---|---|---|")
    for name, cost in costs.items():
        print(
            f"| {name} | {cost.parameters / 1e6:.1f} M | {cost.flops / 1e9:.2f} | {cost.bytes / 1e6:.1f} "
            f"| {cost.batch_size} |"
        )
    print("\n| config, chip, examples a chip |" + "".join(f" {n} chips |" for n in CHIPS))
    print("|---|" + "---|" * len(CHIPS))
    for name in MODELLED:
        for chip in KINDS:
            for per_chip in PER_CHIP:
                cells = [_cell(costs[name], chip, per_chip, chips) for chips in CHIPS]
                print(f"| {name}, {chip.name}, {per_chip} | " + " | ".join(cells) + " |")


def count(name: str) -> Cost:
    """What a step of a configuration takes, from its program for an accelerator with two examples a device."""
    config = importlib.import_module(f"configs.{name}").get_config()
    modalities, batch_size = MODALITIES[name], config.train.batch_size
    config.train.batch_size = 4
    model, method = make_model(modalities, config.network), make_method(config.method)
    batch = random_batch(modalities, 4)
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):  # convolutions as an accelerator runs them
        state = jax.eval_shape(lambda: init_state(config, model, method, batch))
        step = make_step(config, model, method, 1)
        spread = jax.pmap(step, axis_name="devices", in_axes=(None, 0, None), out_axes=None)
        lowered = spread.lower(state, _on_two_devices(batch), hyper_parameters(config))
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    return Cost(parameters, lowered.cost_analysis()["flops"] / 2, _all_reduced(lowered.as_text()), batch_size)


def _on_two_devices(batch: Batch) -> Batch:
    cut = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batch._replace(present=batch.index))
    return cut._replace(present=batch.present.reshape(-1, 2, 2).swapaxes(0, 1))


def _all_reduced(text: str) -> int:
    """Bytes of all operands of all-reduces in a program of float32."""
    total = 0
    for operands in re.findall(r'"stablehlo\.all_reduce".*?\}\) : \((.*?)\) ->', text, re.DOTALL):
        for shape in re.findall(r"tensor<((?:\d+x)*)f32>", operands):
            total += 4 * math.prod(int(side) for side in shape.split("x") if side)
    return total


def _cell(cost: Cost, chip: Chip, per_chip: int, chips: int) -> str:
    compute = cost.flops * per_chip / (UTILISATION * chip.flops)
    send = 2 * (chips - 1) / chips * cost.bytes / chip.bandwidth
    return f"{1e3 * compute:.1f} + {1e3 * send:.1f} ms, {per_chip * chips / (compute + send):,.0f}/s"


if __name__ == "__main__":
    app.run(main)
