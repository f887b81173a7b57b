"""Training steps of a network in PyTorch, eager and compiled, in TF32 and in bfloat16."""

import functools
from collections.abc import Callable

import torch

from benchmarks import measure
from benchmarks.gpu_parts.steps import PRECISIONS, initial_state, median_seconds, setting
from benchmarks.peers.mmvm import MMVM
from benchmarks.train_step import count_gflop, torch_inputs, torch_steps
from mmvm_jax.errors import first_line


def run(table, options) -> None:
    """Adds how long compiling took, waits, then adds the rates of both."""
    torch.set_float32_matmul_precision("high")
    steps, variables = {}, initial_state(options.what, options.toy).variables
    for precision in PRECISIONS:
        config, model, batch = setting(options.what, precision, options.toy)
        peer = MMVM(model, options.what, variables).to(_device())
        inputs = [tensor.to(_device()) for tensor in torch_inputs(model, batch)]
        noise_shape = (len(inputs), len(batch.index), model.latent_dim)
        for name, loss in {"eager": peer, "compiled": torch.compile(peer)}.items():
            loss = functools.partial(_loss_in_precision, loss, precision)
            steps[precision, name] = torch_steps(config, peer, loss, inputs, noise_shape)
    gflop = count_gflop(steps["float32", "eager"])
    steps = {key: step for key, step in steps.items() if _works(table, options.what, *key, step)}
    options.wait()
    for (precision, name), step in steps.items():
        rate = len(batch.index) / median_seconds(step, options.toy)
        table.add("peers", f"{options.what} {precision} {name}", examples_per_second=rate, gflop=gflop)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _loss_in_precision(loss: Callable, precision: str, *arguments):
    with torch.autocast(_device(), torch.bfloat16, enabled=precision == "bfloat16"):
        return loss(*arguments)


def _works(table, what: str, precision: str, name: str, step: Callable) -> bool:
    """Whether the first steps, which compile, can be done; adds how long they took, or why they cannot."""
    try:
        seconds = measure.first_call(step)
    except Exception as error:  # of many kinds; the other steps are wanted all the same
        table.add("peers", f"{what} {precision} {name}", failed=f"{type(error).__name__}: {first_line(error)}")
        return False
    table.add("first steps", f"{what} {precision} {name}", seconds=seconds)
    return True
