"""Devices: many steps in a row."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.data.batches import Batches
from mmvm_jax.data.dataset import complete_split
from mmvm_jax.errors import UserError
from mmvm_jax.runtime import devices, processes
from mmvm_jax.types import Batch


def test_small_steps_in_a_row_do_not_wait_for_each_other():
    """Sums over several CPU devices that are under way at once may wait for each other for ever."""
    batch = Batch({"a": np.ones((8, 3), np.float32)}, np.ones((1, 8), bool), np.arange(8), np.zeros(8, np.int32))

    def step(state, batch):
        products = [state @ jnp.tile(batch.inputs["a"].T, (22, 4))[:64, :8] for _ in range(2)]
        sums = [devices.sum_over_devices(jnp.sum(product)) for product in products]
        return state + 0.0 * sum(sums), devices.sum_over_devices(jnp.float32(1.0))

    run = devices.data_parallel(step, reduced=True)
    state = jnp.ones((64, 64))
    for _ in range(300):
        state, count = run(state, batch)
    assert float(count) == jax.local_device_count() > 1


@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_processes_do_not_overlap_and_cover_an_epoch(monkeypatch, count):
    split = complete_split({"a": np.arange(64.0)[:, None]}, np.zeros(64, np.int32))
    monkeypatch.setattr(jax, "process_count", lambda: count)
    seen = []
    for process in range(count):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        batches = Batches(split, 16, 3, processes.share(16))
        seen.append([next(batches).inputs["a"].ravel() for _ in range(4)])
    assert {len(rows) for epoch in seen for rows in epoch} == {16 // count}
    assert sorted(np.concatenate([rows for epoch in seen for rows in epoch])) == list(range(64))


@pytest.mark.parametrize("error", [UserError("said"), ZeroDivisionError("said")])
def test_whatever_the_first_process_raises_all_raise(monkeypatch, error):
    sent = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_broadcast", lambda value: sent.append(value) or sent[0])

    def fail():
        raise error

    for process in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        with pytest.raises(UserError, match="said"):
            processes.from_first(fail)
    assert sent[1] is None  # the second process has nothing to send


@pytest.mark.parametrize("given", [("host:1", None, None), (None, 2, 0), (None, None, 1)])
def test_only_some_of_the_flags_of_processes(given):
    with pytest.raises(UserError, match="go together; allowed: all or none"):
        processes.join(*given)


def _steps_with_metric(value):
    """Two steps in one program whose only metric is ``value``, and what they are called with."""

    def step(state, batch, hyper):
        loss = devices.sum_over_devices(jnp.sum(batch.inputs["a"])) * 0.0 + hyper
        return state + 1, {"loss": loss}

    batch = Batch({"a": np.ones((8, 3), np.float32)}, np.ones((1, 8), bool), np.arange(8), np.zeros(8, np.int32))
    run = devices.data_parallel_steps(step, lambda table, item: item)
    return run, (jnp.zeros(()), [batch, batch], (), jnp.float32(value))


@pytest.mark.parametrize("value", [0.0, -1.5, np.inf, -np.inf, np.nan, np.finfo(np.float32).min])
@pytest.mark.parametrize("flag", [False, True])
def test_no_metric_reads_as_a_request_to_stop(value, flag):
    run, arguments = _steps_with_metric(value)
    state, metrics, raised = run(*arguments, flag)
    np.testing.assert_array_equal(metrics["loss"], np.full(2, value, np.float32))
    assert state == 2 and bool(raised) == flag


def test_the_sum_of_the_flags_waits_for_the_sums_of_the_metrics(monkeypatch):
    """In the program that XLA has optimised: it must not see that what ties the sums together is always false."""
    programs, pmap = [], jax.pmap

    def keep(*args, **options):
        compiled = pmap(*args, **options)

        def run(*rest):
            programs.append(compiled.lower(*rest).compile().as_text())
            return compiled(*rest)

        return run

    monkeypatch.setattr(jax, "pmap", keep)
    run, arguments = _steps_with_metric(1.0)
    run(*arguments, False)
    (program,) = programs
    sums = [line.split(" = ") for line in program.splitlines() if re.search(r" = \S+ all-reduce(-start)?\(", line)]
    of_flag = [definition for _, definition in sums if definition.startswith("s32")]
    of_metrics = [name.split()[-1] for name, definition in sums if definition.startswith("f32")]
    assert len(of_flag) == len(of_metrics) == 1
    assert of_metrics[0] in _ancestors(program, of_flag[0])


def _ancestors(program: str, definition: str) -> set[str]:
    """The instructions of an HLO program that one instruction, given by its definition, depends on."""
    lines = (line.strip().removeprefix("ROOT ").split(" = ", 1) for line in program.splitlines() if " = " in line)
    definitions, found, open_ = dict(lines), set(), [definition]
    while open_:
        for name in re.findall(r"%[\w.-]+", open_.pop()):
            if name not in found:
                found.add(name)
                open_.append(definitions.get(name, ""))
    return found
