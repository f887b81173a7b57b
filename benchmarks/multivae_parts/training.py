"""Training steps on one batch, and their peak memory."""

from collections.abc import Iterator

import jax
import numpy as np
import torch
from multivae.data.datasets import MultimodalBaseDataset

from benchmarks import measure
from benchmarks.multivae_parts.case import Case
from benchmarks.multivae_parts.timing import in_turn, line, seconds_of
from mmvm_jax.runtime import devices
from mmvm_jax.training.feeding import Resident
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.step import make_step


def run(case: Case, steps: int, rounds: int) -> Iterator[str]:
    """Yield the lines of the bare steps and of their memory; a round has ``steps`` steps of each."""
    ours, theirs = our_steps(case, steps), their_steps(case, steps)
    seconds = in_turn({"ours": seconds_of(ours), "theirs": seconds_of(theirs)}, rounds)
    yield line("step", seconds["ours"], seconds["theirs"], steps * case.config.train.batch_size, "examples/s")
    own, peer = (measure.peak_megabytes(step) for step in (ours, theirs))
    yield f"{'memory':12} ours {own:9,.0f}  MultiVae {peer:9,.0f} MB          ratio {peer / own:.2f}"


def our_steps(case: Case, steps: int):
    """Our steps on one batch, in one program, without arguments."""
    step = make_step(case.config, case.model, case.method, 1_000_000)
    run_steps, table = devices.data_parallel_steps(step, Resident.read), Resident.place(case.data.train)
    items = [np.arange(case.config.train.batch_size, dtype=np.int32)] * steps
    hyper, carry = hyper_parameters(case.config), [devices.replicate(case.state)]

    def run():
        carry[0], metrics, _ = run_steps(carry[0], items, table, hyper, False)
        jax.block_until_ready(metrics)

    return run


def their_steps(case: Case, steps: int):
    """MultiVae's steps on one batch, without arguments."""
    size = case.config.train.batch_size
    batch = MultimodalBaseDataset({name: tensor[:size] for name, tensor in case.peer_examples.data.items()})
    optimizer = torch.optim.Adam(case.peer.parameters(), case.config.optimizer.learning_rate)

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = case.peer(batch, epoch=1).loss
            loss.backward()
            optimizer.step()
        loss.item()

    return run
