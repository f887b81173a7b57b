"""Seconds, memory and the speed of the machine."""

import ctypes
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmvm_jax.data.dataset import complete_split
from mmvm_jax.runtime import devices
from mmvm_jax.training.feeding import feed
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import init_state
from mmvm_jax.training.step import make_step

WARM_UP = 3
STEPS = 10  # timed at once; as many as training runs in one program


def time_in_turn(steps: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step, round by round: {name: [rounds]}."""
    seconds = {name: [] for name in steps}
    for round_ in range(rounds + WARM_UP):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def seconds_of_steps(config, model, method, examples, count: int) -> tuple[float, list[float]]:
    """Seconds to compile our training step, and of each of ``count`` steps, the examples lying on the device."""
    batches = feed(complete_split(examples.inputs, examples.labels), config.train.batch_size, config.seed)
    state = devices.replicate(init_state(config, model, method, examples))
    hyper = hyper_parameters(config)
    steps = devices.data_parallel_steps(make_step(config, model, method, 1_000_000), batches.read)
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        state, *_ = jax.block_until_ready(steps(state, batches.take(1), batches.table, hyper, False))
        times.append(time.perf_counter() - start)
    return times[0] - min(times[1:]), times[1:]


def first_call(step: Callable) -> float:
    """Seconds of the first call of a step, which compiles."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def matrix_peak(side: int = 2048, dtype=jnp.float32) -> float:
    """GFLOP/s of a large matrix product of random numbers through XLA, the best of ten."""
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product, best = jax.jit(jnp.matmul), float("inf")
    for _ in range(10):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def peak_megabytes(step: Callable) -> float:
    """Most main memory that a step holds beyond what is held before it, as Linux counts it."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is that from now on
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 1e3


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))
