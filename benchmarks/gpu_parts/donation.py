"""Steps that may overwrite the state they are given, against steps that may not: time and memory."""

import concurrent.futures
import statistics
from collections.abc import Callable

import jax

from benchmarks import measure
from benchmarks.measure import STEPS
from benchmarks.workloads import random_batch, workload
from mmvm_jax.data.dataset import complete_split
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training.feeding import Resident
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import init_state
from mmvm_jax.training.step import make_step

NETWORKS = ("hippocampal", "polymnist_resnet")


def run(table, options) -> None:
    """Adds a row for each network, without donation and with it."""
    options.wait()
    for what in NETWORKS:
        config, modalities = workload(what, 0)
        batch = random_batch(modalities, 2 if options.toy else config.train.batch_size)
        model, method = make_model(modalities, config.network), make_method(config.method)
        state = jax.device_get(init_state(config, model, method, batch))
        table_of_examples = Resident.place(complete_split(batch.inputs, batch.labels))
        rest = batch.index, table_of_examples, hyper_parameters(config)
        steps = _steps(make_step(config, model, method, 1_000_000))
        compiled = lambda donated: jax.jit(steps, donate_argnums=donated).lower(state, *rest).compile()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            programs = dict(zip(("donated", "kept"), pool.map(compiled, ((0,), ()))))
        for name, program in programs.items():  # in this order, since the device only counts its highest peak
            table.add("donation", f"{what}, {name}", **_time_and_memory(program, state, rest, 3 if options.toy else 20))


def _steps(step: Callable) -> Callable:
    """Several steps as one program: (state, index, examples, hyper) -> (state, metrics)."""

    def steps(state, index, examples, hyper):
        one = lambda state, _: step(state, Resident.read(examples, index), hyper)
        return jax.lax.scan(one, state, length=STEPS)

    return steps


def _time_and_memory(compiled, state, rest, rounds: int) -> dict[str, float]:
    """Milliseconds of a step; MB that the program needs, and the highest peak so far on the device, if it counts."""
    sizes = compiled.memory_analysis()
    needed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    carry = [jax.device_put(state)]

    def run():
        carry[0], metrics = compiled(carry[0], *rest)
        jax.block_until_ready(metrics)

    seconds = statistics.median(measure.time_in_turn({"": run}, rounds)[""]) / STEPS
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    megabytes = {"needed_MB": (needed - sizes.alias_size_in_bytes) / 1e6, "peak_so_far_MB": peak / 1e6}
    return {"ms": 1e3 * seconds, **megabytes}
