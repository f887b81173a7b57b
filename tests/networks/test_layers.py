import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.networks import layers

SIZES = [(28, 28), (7, 7), (4, 5), (21, 33), (1, 2)]
TOLERANCE = {jnp.float32: 2e-5, jnp.float64: 1e-12}


@pytest.fixture(params=TOLERANCE, ids=lambda dtype: dtype.__name__)
def dtype(request):
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param


def _arrays(size, dtype, channels=3, features=5, n=4):
    """x [N, H, W, C], kernel [3, 3, C, F] and y [N, ceil(H / 2), ceil(W / 2), F]."""
    random = np.random.default_rng(0)
    x = random.normal(size=(n, *size, channels))
    kernel = random.normal(size=(3, 3, channels, features))
    y = random.normal(size=(n, *map(layers.half, size), features))
    return [jnp.asarray(array, dtype) for array in (x, kernel, y)]


def _assert_same(actual, expected, dtype):
    """Every leaf agrees, relative to the largest number in it."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * float(jnp.abs(b).max())),
        actual,
        expected,
    )


def _value_and_pullback(function, arguments, cotangent):
    value, pullback = jax.vjp(function, *arguments)
    return value, pullback(cotangent)


@pytest.mark.parametrize("size", SIZES)
def test_convolution_formulations_agree(size, dtype):
    x, kernel, y = _arrays(size, dtype)
    actual = _value_and_pullback(layers.convolve_by_matrix, (x, kernel), y)
    expected = _value_and_pullback(layers.convolve_by_convolution, (x, kernel), y)
    _assert_same(actual, expected, dtype)


@pytest.mark.parametrize("size", SIZES)
def test_transposed_formulations_agree(size, dtype):
    x, kernel, y = _arrays(size, dtype)
    actual, expected = (
        _value_and_pullback(lambda y, kernel: function(y, kernel, size), (y, kernel), x)
        for function in (layers.convolve_transpose_by_matrix, layers.convolve_transpose_by_convolution)
    )
    _assert_same(actual, expected, dtype)


@pytest.mark.parametrize("size", SIZES)
def test_convolution_is_the_sum_over_the_kernel(size):
    """Against the definition with PyTorch's padding, pixel by pixel."""
    x, kernel, y = (np.asarray(array) for array in _arrays(size, jnp.float32))
    padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    expected = np.zeros_like(y)
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[:, row, column] = np.einsum("nijc,ijcf->nf", window, kernel)
    _assert_same(layers.convolve_by_convolution(x, kernel), expected, jnp.float32)


@pytest.mark.parametrize("size", SIZES)
def test_transpose_is_the_adjoint(size, dtype):
    x, kernel, y = _arrays(size, dtype)
    down = jnp.vdot(layers.convolve(x, kernel), y)
    up = jnp.vdot(x, layers.convolve_transpose(y, kernel, size))
    np.testing.assert_allclose(down, up, rtol=50 * TOLERANCE[dtype])


def test_batched_kernels_equal_single_ones():
    """The layers keep their values and gradients under vmap, kernels included."""
    x, kernel, y = (jnp.stack([array, 2 * array]) for array in _arrays((7, 6), jnp.float32))
    for function, arguments, cotangent in (
        (layers.convolve, (x, kernel), y),
        (lambda y, kernel: layers.convolve_transpose(y, kernel, (7, 6)), (y, kernel), x),
    ):
        batched = jax.vmap(lambda *pair: _value_and_pullback(function, pair[:2], pair[2]))(*arguments, cotangent)
        for m in range(2):
            single = _value_and_pullback(function, [array[m] for array in arguments], cotangent[m])
            _assert_same(jax.tree.map(lambda leaf: leaf[m], batched), single, jnp.float32)


def test_modules_mirror_each_other():
    x = jnp.ones((2, 21, 33, 3))
    hidden, variables = layers.Conv(8).init_with_output(jax.random.key(0), x)
    assert hidden.shape == (2, 11, 17, 8)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 3, 8), "bias": (8,)}}
    output, variables = layers.ConvTranspose(3, (21, 33)).init_with_output(jax.random.key(0), hidden)
    assert output.shape == x.shape
    assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 3, 8), "bias": (3,)}}


def test_biases_are_added():
    for module in (layers.Conv(2), layers.ConvTranspose(2, (8, 8))):
        x = jnp.zeros((1, 4, 4, 3))
        variables = module.init(jax.random.key(0), x)
        variables["params"]["bias"] = jnp.array([1.0, -2.0])
        assert jnp.array_equal(module.apply(variables, x)[0, 0, 0], jnp.array([1.0, -2.0]))


def test_initial_kernels_follow_he():
    """Standard deviation sqrt(2 / (9 C)) with C input channels, for the transposed layer too."""
    x = jnp.zeros((1, 4, 4, 64))
    for module in (layers.Conv(128), layers.ConvTranspose(128, (8, 8))):
        kernel = module.init(jax.random.key(0), x)["params"]["kernel"]
        np.testing.assert_allclose(kernel.std(), (2 / (9 * 64)) ** 0.5, rtol=0.02)
