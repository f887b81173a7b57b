"""Training from examples in memory: our loop against MultiVae's trainer and loader."""

import tempfile
import time
from collections.abc import Iterator

from multivae.trainers import BaseTrainer, BaseTrainerConfig

from benchmarks.multivae_parts.case import Case
from benchmarks.multivae_parts.timing import in_turn, line, seconds_of
from mmvm_jax.training.loop import train


def run(case: Case, steps: int, rounds: int) -> Iterator[str]:
    """Yield the line of the loops; a round has ``steps`` steps of each."""
    with tempfile.TemporaryDirectory() as folder:
        timed = {"ours": lambda: our_loop(case, steps), "theirs": seconds_of(their_loop(case, folder))}
        seconds = in_turn(timed, rounds)
    yield line("loop", seconds["ours"], seconds["theirs"], steps * case.config.train.batch_size, "examples/s")


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
