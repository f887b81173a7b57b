import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.networks import layers

SIZES = [(28, 28), (7, 6), (21, 33), (1, 2)]
TOLERANCE = {jnp.float32: 2e-5, jnp.float64: 1e-12}


@pytest.fixture(params=TOLERANCE, ids=lambda dtype: dtype.__name__)
def dtype(request):
    with jax.enable_x64(request.param == jnp.float64):
        yield request.param


def _arrays(size, dtype, channels=3, features=5, n=4):
    """x [N, H, W, C], kernel [3, 3, C, F], y [N, ceil(H / 2), ceil(W / 2), F] and biases [F], [C]."""
    random = np.random.default_rng(0)
    x = random.normal(size=(n, *size, channels))
    kernel = random.normal(size=(3, 3, channels, features))
    y = random.normal(size=(n, *map(layers.half, size), features))
    biases = random.normal(size=features), random.normal(size=channels)
    return [jnp.asarray(array, dtype) for array in (x, kernel, y, *biases)]


def _assert_same(actual, expected, dtype):
    """Every leaf agrees, relative to the largest number in it."""

    def check(a, b):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())

    jax.tree.map(check, actual, expected)


def _value_and_pullback(function, arguments, cotangent):
    def run(arguments, cotangent):
        value, pullback = jax.vjp(function, *arguments)
        return value, pullback(cotangent)

    return jax.jit(run)(arguments, cotangent)


@pytest.mark.parametrize("size", SIZES)
def test_formulations_of_the_convolution_agree(size, dtype):
    x, kernel, y, bias, _ = _arrays(size, dtype)
    matrix, convolution = (
        _value_and_pullback(formulation[0], (x, kernel, bias), y) for formulation in layers.FORMULATIONS.values()
    )
    _assert_same(matrix, convolution, dtype)


@pytest.mark.parametrize("size", SIZES)
def test_formulations_of_the_transpose_agree(size, dtype):
    x, kernel, y, _, bias = _arrays(size, dtype)
    matrix, convolution = (
        _value_and_pullback(lambda *arguments: formulation[1](*arguments, size), (y, kernel, bias), x)  # noqa: B023
        for formulation in layers.FORMULATIONS.values()
    )
    _assert_same(matrix, convolution, dtype)


@pytest.mark.parametrize("size", SIZES)
def test_convolution_is_the_sum_over_the_kernel(size):
    """Against the definition with PyTorch's padding, pixel by pixel."""
    x, kernel, y, bias, _ = (np.asarray(array) for array in _arrays(size, jnp.float32))
    padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    expected = np.empty_like(y)
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[:, row, column] = np.einsum("nijc,ijcf->nf", window, kernel) + bias
    _assert_same(jax.jit(layers.convolve)(x, kernel, bias), jnp.asarray(expected), jnp.float32)


@pytest.mark.parametrize("size", SIZES)
def test_transpose_is_the_adjoint(size, dtype):
    x, kernel, y, *biases = _arrays(size, dtype)
    zeros = [jnp.zeros_like(bias) for bias in biases]
    down = jnp.vdot(layers.convolve(x, kernel, zeros[0]), y)
    up = jnp.vdot(x, layers.convolve_transpose(y, kernel, zeros[1], size))
    np.testing.assert_allclose(down, up, rtol=50 * TOLERANCE[dtype])


def test_batched_kernels_equal_single_ones():
    """The layers keep their values and gradients under vmap, kernels included."""
    size = (7, 6)
    x, kernel, y, *biases = (jnp.stack([array, 2 * array]) for array in _arrays(size, jnp.float32))
    transpose = lambda *arguments: layers.convolve_transpose(*arguments, size)  # noqa: E731
    for function, arguments, cotangent in (
        (layers.convolve, (x, kernel, biases[0]), y),
        (transpose, (y, kernel, biases[1]), x),
    ):
        run = lambda arguments, cotangent: _value_and_pullback(function, arguments, cotangent)  # noqa: E731, B023
        batched = jax.vmap(run)(arguments, cotangent)
        for m in range(2):
            single = run([array[m] for array in arguments], cotangent[m])
            _assert_same(jax.tree.map(lambda leaf: leaf[m], batched), single, jnp.float32)  # noqa: B023


def test_modules_mirror_each_other():
    x = jnp.ones((2, 21, 33, 3))
    hidden, variables = layers.Conv(8).init_with_output(jax.random.key(0), x)
    assert hidden.shape == (2, 11, 17, 8)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 3, 8), "bias": (8,)}}
    output, variables = layers.ConvTranspose(3, (21, 33)).init_with_output(jax.random.key(0), hidden)
    assert output.shape == x.shape
    assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 3, 8), "bias": (3,)}}


@pytest.mark.parametrize("module", [layers.Conv(2), layers.ConvTranspose(2, (8, 8))], ids=lambda m: type(m).__name__)
def test_biases_are_added(module):
    x = jnp.zeros((1, 4, 4, 3))
    variables = module.init(jax.random.key(0), x)
    variables["params"]["bias"] = jnp.array([1.0, -2.0])
    assert jnp.array_equal(module.apply(variables, x)[0, 0, 0], jnp.array([1.0, -2.0]))


@pytest.mark.parametrize(
    ("module", "gain"),
    [
        (layers.Conv(128), 2),
        (layers.ConvTranspose(128, (8, 8)), 8),
        (layers.ConvTranspose(128, (8, 8), gain=1.0), 4),
    ],
)
def test_initial_kernels_have_the_stated_variance(module, gain):
    """gain / (9 C) with C input channels; four times that where only a quarter of the kernel meets a pixel."""
    kernel = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (gain / (9 * 64)) ** 0.5, rtol=0.02)


def test_every_backend_has_a_formulation():
    for backend in ("cpu", "gpu", "tpu"):
        assert layers.formulation(backend) in layers.FORMULATIONS
