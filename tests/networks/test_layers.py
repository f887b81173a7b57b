import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.networks.layers import Conv, ConvTranspose

HALF = ((3, 3), (2, 2), (1, 1))
QUARTER = ((4, 4), (2, 2), (1, 1))


def test_modules_mirror_each_other():
    x = jnp.ones((2, 21, 33, 3))
    hidden, variables = Conv(8, *HALF).init_with_output(jax.random.key(0), x)
    assert hidden.shape == (2, 11, 17, 8)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 3, 8), "bias": (8,)}}
    output, variables = ConvTranspose(3, *HALF, size=(21, 33)).init_with_output(jax.random.key(0), hidden)
    assert output.shape == x.shape
    assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 3, 8), "bias": (3,)}}
    assert ConvTranspose(3, *QUARTER).init_with_output(jax.random.key(0), hidden)[0].shape == (2, 22, 34, 3)


@pytest.mark.parametrize("module", [Conv(2, *HALF), ConvTranspose(2, *QUARTER)], ids=lambda m: type(m).__name__)
def test_biases_are_added(module):
    x = jnp.zeros((1, 4, 4, 3))
    variables = module.init(jax.random.key(0), x)
    variables["params"]["bias"] = jnp.array([1.0, -2.0])
    assert jnp.array_equal(module.apply(variables, x)[0, 0, 0], jnp.array([1.0, -2.0]))
    without = module.clone(use_bias=False)
    assert list(without.init(jax.random.key(0), x)["params"]) == ["kernel"]


@pytest.mark.parametrize(
    ("module", "gain"),
    [
        (Conv(128, *HALF), 2),
        (ConvTranspose(128, *HALF, size=(8, 8)), 8),
        (ConvTranspose(128, *HALF, gain=1.0, size=(8, 8)), 4),
    ],
)
def test_initial_kernels_have_the_stated_variance(module, gain):
    """gain / (9 C) with C input channels; four times that where only a quarter of the kernel meets a pixel."""
    kernel = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (gain / (9 * 64)) ** 0.5, rtol=0.02)
