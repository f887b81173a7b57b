"""Every method's loss and gradient, compiled in float32 for 20,000 examples, against float64 on a few at a time.

The loss of an example does not depend on the others of its batch, so the pieces give the whole. The loss is compiled
once by itself, as for held-out examples, and once with its gradient: compilers make different programs of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from float32_noise import float32_noise  # noqa: F401
from linear_gaussian import loss_of, make_batch, make_params, quick_jit, with_method_params

NAMES = ("alpha", "beta")
NUM_EXAMPLES, PIECE = 20_000, 1_000
CASES = (
    "independent", "average", "poe", "moe", "mopoe", "mvae", "mmvae_loose", "mmvae_plus", "mmvm", "meme", "mmjsd",
    "mvtcae", "crmvae", "hellinger", "barycentre", "mixture_of_barycentres",
)  # fmt: skip
VALUES, GRADIENTS = 1e-4, 1e-3  # allowed, relative to the largest; gradients add up all examples


def make_inputs(case):
    """Parameters and a batch, a quarter of which lacks nothing; in float64 where it is enabled."""
    present = np.random.default_rng(1).random((len(NAMES), NUM_EXAMPLES)) < 0.7
    present[:, : NUM_EXAMPLES // 4] = True
    params = make_params(NAMES)
    batch = make_batch(params, present)
    return with_method_params(params, case, batch._replace(inputs={n: x[:16] for n, x in batch.inputs.items()})), batch


def loss_and_gradient(case, params, batch):
    def total(params):
        values = loss_of(case, params, batch)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(params)
    return values, gradient


def cut(batch, start):
    piece = slice(start, start + PIECE)
    inputs = {name: x[piece] for name, x in batch.inputs.items()}
    return batch._replace(inputs=inputs, present=batch.present[:, piece], index=batch.index[piece])


def expected(case, params, batch):
    """In pieces, added up by NumPy."""
    run = quick_jit(loss_and_gradient, static_argnums=0)
    values, gradients = zip(*(run(case, params, cut(batch, start)) for start in range(0, NUM_EXAMPLES, PIECE)))
    return np.concatenate(values), jax.tree.map(lambda *leaves: np.sum(leaves, axis=0), *gradients)


def check(one, other, allowed, message=""):
    np.testing.assert_allclose(one, other, rtol=0.0, atol=allowed * np.max(np.abs(other)) + 1e-30, err_msg=message)


@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_gradient(case, in_float64, float32_noise):  # noqa: F811
    with in_float64():
        inputs = jax.tree.map(np.asarray, make_inputs(case))
        right_values, right_gradient = expected(case, *inputs)
    inputs = jax.tree.map(lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, inputs)
    alone = jax.jit(loss_of, static_argnums=0)(case, *inputs)
    values, gradient = jax.jit(loss_and_gradient, static_argnums=0)(case, *inputs)
    assert alone.dtype == values.dtype == jnp.float32
    check(alone, right_values, VALUES, "alone")
    check(values, right_values, VALUES)
    for (path, one), other in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(right_gradient), strict=True):
        check(one, other, GRADIENTS, jax.tree_util.keystr(path))
