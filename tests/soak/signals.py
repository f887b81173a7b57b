"""Interrupts a training of several processes at random moments, and compares its end with an undisturbed one's.

    PYTHONPATH=.:tests:tests/runtime python tests/soak/signals.py --signal=TERM --times=20 --processes=2

Prints a line an interruption: the processes that were sent the signal, the steps done, and the steps lost. TERM must
lose none; KILL at most those since the last checkpoint.
"""

import pathlib
import random
import signal
import tempfile
import time

import test_processes as processes
from absl import app, flags, logging

from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.errors import RESTART

_SIGNAL = flags.DEFINE_enum("signal", "TERM", ["TERM", "KILL"], "What is sent.")
_TIMES = flags.DEFINE_integer("times", 20, "How often.")
_PROCESSES = flags.DEFINE_integer("processes", 2, "That train together.")
_STEPS = flags.DEFINE_integer("steps", 30_000, "Of the whole training; many enough not to end before.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    moments = random.Random(_SEED.value)
    with tempfile.TemporaryDirectory() as folder:
        disturbed, alone = pathlib.Path(folder, "disturbed"), pathlib.Path(folder, "alone")
        lost = [_interrupt(disturbed, moments, number + 1) for number in range(_TIMES.value)]
        actual = processes.train(_PROCESSES.value, processes.Run(disturbed, _STEPS.value))
        processes.assert_same(actual, processes.train(1, processes.Run(alone, _STEPS.value)))
    print(f"PASSED: {_TIMES.value} times {_SIGNAL.value}, {sum(lost)} steps done twice, the result as if undisturbed")


def _interrupt(workdir: pathlib.Path, moments: random.Random, number: int) -> int:
    """Starts, interrupts one process some time later, waits for all; returns the steps that have to be done again."""
    running = processes.start_trainings(_PROCESSES.value, processes.Run(workdir, _STEPS.value))
    before = _logged(workdir)
    victims = list(range(_PROCESSES.value))  # at any moment of the start, as a cluster does
    if moments.random() < 0.7:  # in training one suffices
        processes.wait_for_steps(workdir, before + 1, seconds=600)  # however busy the machine
        victims = [moments.randrange(_PROCESSES.value)]
    time.sleep(moments.uniform(0.0, 3.0))
    for victim in victims:
        running[victim].send_signal(getattr(signal, f"SIG{_SIGNAL.value}"))
    said = [process.communicate(timeout=300)[0] for process in running]
    codes = [process.returncode for process in running]
    logged, saved = _logged(workdir), _saved(workdir)
    print(f"{number}: processes {victims}, exit codes {codes}, logged {before} -> {logged}, saved {saved}", flush=True)
    allowed = {RESTART, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGABRT}
    assert set(codes) <= allowed, "\n".join(said)
    return max(logged - saved, 0)


def _logged(workdir: pathlib.Path) -> int:
    lines = read_metrics(str(workdir))
    return lines[-1]["step"] if lines else 0


def _saved(workdir: pathlib.Path) -> int:
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.latest_step or 0


if __name__ == "__main__":
    app.run(main)
