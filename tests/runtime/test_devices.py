"""Devices: many steps in a row."""

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

    run = devices.spread(step, reduced=True)
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
