"""The formulations of a convolution against each other and against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.networks import bank, formulations
from mmvm_jax.networks.formulations import FORMULATIONS, Form

HALF, SAME = ((3, 3), (2, 2), (1, 1)), ((3, 3), (1, 1), (1, 1))
FORMS = {
    "28x28 3x3/2": Form((28, 28), *HALF),
    "7x6 3x3/2": Form((7, 6), *HALF),
    "1x2 3x3/2": Form((1, 2), *HALF),
    "64 3x3/2 padding 2": Form((12, 12), (3, 3), (2, 2), (2, 2)),
    "8x6 4x4/2": Form((8, 6), (4, 4), (2, 2), (1, 1)),
    "odd 4x4/2": Form((9, 7), (4, 4), (2, 2), (1, 1)),
    "4x4 to one": Form((4, 4), (4, 4), (1, 1), (0, 0)),
    "4x4/4": Form((14, 14), (4, 4), (4, 4), (1, 1)),
    "columns": Form((4, 9), (1, 4), (1, 2), (0, 1)),
    "point": Form((5, 4), (1, 1), (1, 1), (0, 0)),
    "14x14 same": Form((14, 14), *SAME),
    "7x9 same": Form((7, 9), *SAME),
    "5x6 valid": Form((5, 6), (3, 3), (1, 1), (0, 0)),
    "5x6 full": Form((5, 6), (3, 3), (1, 1), (2, 2)),
}
CASES = [
    pytest.param(name, form, id=f"{name}-{id_}")
    for id_, form in FORMS.items()
    for name in FORMULATIONS
    if name not in ("convolution", "winograd") or (name == "winograd" and form[1:3] == SAME[:2])
]
# The transforms of winograd, whose entries reach 8, cost it a digit.
TOLERANCE = {"float32": {"patches": 2e-6, "winograd": 2e-5}, "float64": {"patches": 1e-12, "winograd": 1e-12}}


@pytest.fixture
def dtype(precision):
    return precision.dtype


def _arrays(form, dtype, channels=3, features=5, n=4):
    """x [N, H, W, C], kernel [kh, kw, C, F], y [N, rows, columns, F]."""
    random = np.random.default_rng(0)
    shapes = (n, *form.size, channels), (*form.kernel, channels, features), (n, *form.output_size, features)
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def _assert_same(actual, expected, tolerance):
    """Every leaf agrees, relative to the largest number in it."""

    def check(a, b):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())

    jax.tree.map(check, actual, expected)


def _value_and_pullback(function, arguments, cotangent):
    def run(arguments, cotangent):
        value, pullback = jax.vjp(function, *arguments)
        return value, pullback(cotangent)

    return jax.jit(run)(arguments, cotangent)


@pytest.mark.parametrize("name, form", CASES)
def test_formulations_agree(name, form, dtype):
    """Values and gradients of the convolution and of its transpose."""
    x, kernel, y = _arrays(form, dtype)
    for direction, images, cotangent in ((0, x, y), (1, y, x)):
        actual, expected = (
            _value_and_pullback(
                lambda images, kernel: FORMULATIONS[which][direction](images, kernel, form), (images, kernel), cotangent
            )
            for which in (name, "convolution")
        )
        _assert_same(actual, expected, TOLERANCE[dtype][name])


@pytest.mark.parametrize("name, form", CASES)
def test_forward_mode_agrees_with_the_definition_of_a_derivative(name, form, x64):
    """A convolution is linear in either argument, so two more of them are its derivative exactly."""
    x, kernel, y = _arrays(form, "float64")
    for direction, images in ((0, x), (1, y)):
        function = lambda images, kernel: FORMULATIONS[name][direction](images, kernel, form)
        tangents = jnp.cos(images), jnp.sin(kernel)
        _, tangent = jax.jit(lambda *arrays: jax.jvp(function, arrays[:2], arrays[2:]))(images, kernel, *tangents)
        plain = lambda images, kernel: FORMULATIONS["convolution"][direction](images, kernel, form)
        _assert_same(tangent, plain(tangents[0], kernel) + plain(images, tangents[1]), 1e-12)


@pytest.mark.parametrize("name", [name for name in FORMULATIONS if name != "convolution"])
def test_second_derivatives_of_a_bank(name, x64):
    """Forward over reverse mode, batched over kernels: a Hessian times a vector."""
    form = Form((7, 6), *SAME)
    x, kernel, _ = _arrays(form, "float64", n=2)
    kernels = jnp.stack([kernel, jnp.cos(kernel)])

    def product(which):
        def total(kernels):
            down = jax.vmap(lambda kernel: FORMULATIONS[which][0](x, kernel, form))(kernels)
            return jnp.sum(jnp.sin(jax.vmap(lambda y, kernel: FORMULATIONS[which][1](y, kernel, form))(down, kernels)))

        return jax.jit(lambda kernels: jax.jvp(jax.grad(total), (kernels,), (jnp.sin(kernels),)))(kernels)

    _assert_same(product(name), product("convolution"), 1e-10)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_convolution_is_the_sum_over_the_kernel(form):
    """Against the definition with PyTorch's padding, pixel by pixel."""
    x, kernel, y = (np.asarray(array) for array in _arrays(form, "float32"))
    spare = max(*form.kernel, *form.strides)
    padded = np.pad(x, ((0, 0), *((pixels, pixels + spare) for pixels in form.padding), (0, 0)))
    expected = np.empty_like(y)
    for row, column in np.ndindex(form.output_size):
        i, j = form.strides[0] * row, form.strides[1] * column
        window = padded[:, i : i + form.kernel[0], j : j + form.kernel[1]]
        expected[:, row, column] = np.einsum("nijc,ijcf->nf", window, kernel)
    actual = jax.jit(formulations.convolve, static_argnums=(2, 3))(x, kernel, form.strides, form.padding)
    _assert_same(actual, jnp.asarray(expected), 2e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_transpose_is_the_adjoint(form):
    x, kernel, y = _arrays(form, "float32")

    @jax.jit
    def products(x, kernel, y):
        down = jnp.vdot(formulations.convolve(x, kernel, form.strides, form.padding), y)
        return down, jnp.vdot(x, formulations.convolve_transpose(y, kernel, form.strides, form.padding, form.size))

    np.testing.assert_allclose(*products(x, kernel, y), rtol=1e-3)


def test_a_sequence_is_an_image_of_one_row():
    form = Form((1, 9), (1, 4), (1, 2), (0, 1))
    x, kernel, y = _arrays(form, "float32")
    expected = formulations.convolve(x, kernel, form.strides, form.padding)[:, 0]
    np.testing.assert_array_equal(formulations.convolve(x[:, 0], kernel[0], (2,), (1,)), expected)
    expected = formulations.convolve_transpose(y, kernel, form.strides, form.padding, (1, 9))[:, 0]
    np.testing.assert_array_equal(formulations.convolve_transpose(y[:, 0], kernel[0], (2,), (1,), (9,)), expected)


@pytest.mark.parametrize("name, form", CASES[::5])
def test_batched_kernels_equal_single_ones(name, form):
    """The formulations keep their values and gradients under vmap, kernels included."""
    x, kernel, y = (jnp.stack([array, 2 * array]) for array in _arrays(form, "float32"))
    for direction, arguments, cotangent in ((0, (x, kernel), y), (1, (y, kernel), x)):
        function = lambda images, kernel: FORMULATIONS[name][direction](images, kernel, form)
        run = lambda arguments, cotangent: _value_and_pullback(function, arguments, cotangent)
        batched = jax.vmap(run)(arguments, cotangent)
        for m in range(2):
            single = run([array[m] for array in arguments], cotangent[m])
            _assert_same(jax.tree.map(lambda leaf: leaf[m], batched), single, 2e-6)


def test_runs_side_by_side_avoid_grouped_convolutions_on_a_gpu():
    form, kernel = FORMS[next(iter(FORMS))], jnp.zeros((3, 3, 64, 64))
    with formulations.for_many_runs():
        assert formulations.formulation("gpu", form, kernel) == "patches"
        assert bank.arrangement("gpu", 3) == "batched" and bank.arrangement("tpu", 3) == "unrolled"
        assert formulations.formulation("tpu", form, kernel) == "convolution"
    assert formulations.formulation("gpu", form, kernel) == "convolution" and bank.arrangement("gpu", 3) == "unrolled"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_every_layer_has_a_formulation(backend, form):
    kernel = jnp.zeros((*form.kernel, 64, 64))
    chosen = formulations.formulation(backend, form, kernel)
    assert chosen in FORMULATIONS
    assert chosen != "winograd" or form[1:3] == SAME[:2]
    assert formulations.formulation(backend, form, kernel.astype(jnp.bfloat16)) != "winograd"
