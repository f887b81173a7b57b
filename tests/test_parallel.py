"""Devices: many steps in a row."""

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax import parallel
from mmvm_jax.types import Batch


def test_small_steps_in_a_row_do_not_wait_for_each_other():
    """Sums over several CPU devices that are under way at once may wait for each other for ever."""
    batch = Batch({"a": np.ones((8, 3), np.float32)}, np.ones((1, 8), bool), np.arange(8), np.zeros(8, np.int32))

    def step(state, batch):
        products = [state @ jnp.tile(batch.inputs["a"].T, (22, 4))[:64, :8] for _ in range(2)]
        sums = [parallel.sum_over_devices(jnp.sum(product)) for product in products]
        return state + 0.0 * sum(sums), parallel.sum_over_devices(jnp.float32(1.0))

    run = parallel.spread(step, reduced=True)
    state = jnp.ones((64, 64))
    for _ in range(300):
        state, devices = run(state, batch)
    assert float(devices) == jax.local_device_count() > 1
