"""Training: the bare steps with their peak memory, and the whole loop against MultiVae's trainer and loader."""

import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
import torch
from multivae.data.datasets import MultimodalBaseDataset
from multivae.trainers import BaseTrainer, BaseTrainerConfig

from benchmarks import measure
from benchmarks.multivae_parts.case import Case
from benchmarks.multivae_parts.timing import in_turn, line, seconds_of
from mmvm_jax.runtime import devices
from mmvm_jax.training.feeding import Resident
from mmvm_jax.training.loop import train
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.step import make_step


def run(case: Case, steps: int, rounds: int) -> Iterator[str]:
    """Yield the lines of the steps, the loops and the memory; a round has ``steps`` steps of each."""
    ours, theirs = our_steps(case, steps), their_steps(case, steps)
    with tempfile.TemporaryDirectory() as folder:
        timed = {
            "our step": seconds_of(ours),
            "their step": seconds_of(theirs),
            "our loop": lambda: our_loop(case, steps),
            "their loop": seconds_of(their_loop(case, folder)),
        }
        seconds = in_turn(timed, rounds)
    amount = steps * case.config.train.batch_size
    for what in ("step", "loop"):
        yield line(what, seconds[f"our {what}"], seconds[f"their {what}"], amount, "examples/s")
    memory = [measure.peak_megabytes(step) for step in (ours, theirs)]
    yield f"{'memory':12} ours {memory[0]:9,.0f}  MultiVae {memory[1]:9,.0f} MB          ratio {memory[1] / memory[0]:.2f}"


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


def our_loop(case: Case, steps: int) -> float:
    """Seconds of ``steps`` steps of our loop with all that it logs, after as many that may compile."""
    case.config.train.update({"steps": 2 * steps, "log_every": steps, "checkpoint_every": 2 * steps})
    moments = []
    with tempfile.TemporaryDirectory() as workdir:
        logged = lambda step, split, values: moments.append(time.perf_counter())
        train(case.config, case.model, case.method, case.data, workdir, callbacks=[logged])
    return moments[-1] - moments[0]


def their_loop(case: Case, folder: str):
    """An epoch of MultiVae's trainer over its loader, without arguments."""
    settings = BaseTrainerConfig(
        output_dir=folder,
        per_device_train_batch_size=case.config.train.batch_size,
        learning_rate=case.config.optimizer.learning_rate,
        drop_last=True,
        no_cuda=True,
    )
    trainer = BaseTrainer(case.peer, case.peer_examples, training_config=settings)
    return lambda: trainer.train_step(epoch=1)
