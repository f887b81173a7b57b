"""Our training steps of five networks: rate, ratio to the better peer, and share of the matrix peak."""

import concurrent.futures
import itertools
import statistics
from collections.abc import Callable

import jax.numpy as jnp

from benchmarks import measure
from benchmarks.gpu_parts import NETWORKS
from benchmarks.measure import STEPS
from benchmarks.peers.mmvm import MMVM
from benchmarks.train_step import first_losses, jax_steps
from benchmarks.workloads import random_batch, workload
from mmvm_jax.errors import first_line
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training.state import TrainState, init_state

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of the networks; the former multiply as TF32
SECONDS = 2.0  # of timing, for each of them
COMPILE_SHARE = 0.7  # of the time, at most


def run(table, options) -> None:
    """Adds the peaks, then a row for every network and precision."""
    seconds = options.wait()
    peaks = {name: measure.matrix_peak(512 if options.toy else 16_384, dtype) for name, dtype in PRECISIONS.items()}
    table.add("steps", "matrix product", **{f"{name}_TFLOP/s": peak / 1e3 for name, peak in peaks.items()})
    pool = concurrent.futures.ThreadPoolExecutor()  # XLA times candidate kernels one at a time all the same
    states = {what: pool.submit(initial_state, what, options.toy) for what in NETWORKS}
    pairs = list(itertools.product(NETWORKS, PRECISIONS))
    programs = {(what, p): pool.submit(_program, what, p, states[what], options.toy) for what, p in pairs}
    concurrent.futures.wait(programs.values(), COMPILE_SHARE * seconds)
    for (what, precision), program in programs.items():
        try:
            step, size, values = program.result(timeout=0)
        except Exception as error:  # the other rows are wanted all the same
            table.add("steps", f"{what} {precision}", failed=f"{type(error).__name__}: {first_line(error)}")
        else:
            rate = size / median_seconds(step, options.toy)
            compared = _compared(table, what, precision, rate, size, peaks[precision])
            table.add("steps", f"{what} {precision} batch {size}", examples_per_second=rate, **compared, **values)
    pool.shutdown(wait=False, cancel_futures=True)


def setting(what: str, precision: str, toy: bool):
    """Configuration, model and a random batch of a data set."""
    config, modalities = workload(what, 0)
    batch_size = 2 if toy else config.train.batch_size
    return config, make_model(modalities, config.network, precision), random_batch(modalities, batch_size)


def initial_state(what: str, toy: bool) -> TrainState:
    """The state before the first step, whatever the precision."""
    config, model, batch = setting(what, "float32", toy)
    return init_state(config, model, make_method(config.method), batch)


def median_seconds(steps: Callable, toy: bool) -> float:
    """Seconds of one step, the median of as many rounds as fit."""
    rounds = round((0.1 if toy else SECONDS) / measure.first_call(steps))
    return statistics.median(measure.time_in_turn({"": steps}, max(3, min(50, rounds)))[""]) / STEPS


def _program(what: str, precision: str, state: concurrent.futures.Future, toy: bool):
    """Steps that are compiled, the examples of a batch, and how far the first loss is from the peer's on the CPU."""
    config, model, batch = setting(what, precision, toy)
    method, state = make_method(config.method), state.result()
    steps, values = jax_steps(config, model, method, batch, state), {}
    if precision == "float32":
        ours, theirs = first_losses(config, model, method, batch, state, MMVM(model, what, state.variables))
        values["loss_differs_by"] = abs(ours / theirs - 1.0)
    values["compiled_after"] = measure.first_call(steps)
    return steps, len(batch.index), values


def _compared(table, what: str, precision: str, rate: float, size: int, peak: float) -> dict[str, float]:
    """The ratio to the better peer, and the shares of the peak, from what the peers left in the table."""
    peers = {name: table.last("peers", f"{what} {precision} {name}") for name in ("eager", "compiled")}
    peers = {name: values for name, values in peers.items() if "gflop" in values}
    if not peers:
        return {}
    rates = {name: values["examples_per_second"] for name, values in peers.items()}
    gflop = next(iter(peers.values()))["gflop"] / size
    shares = {f"{name}_of_peak": gflop * other / peak for name, other in {"jax": rate, **rates}.items()}
    return {"ratio": rate / max(rates.values()), **rates, "gflop_an_example": gflop, **shares}
