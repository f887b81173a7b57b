"""Batch normalisation and dropout: what is absent takes no part, neighbours and devices do not matter."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.networks.normalization import BatchNorm, Dropout, Training

PRESENT = np.array([True, False, True, True, False, True])
LOCAL = lambda values: values  # the sum over one device


def _training(present, total=LOCAL, indices=None):
    indices = np.arange(len(present)) if indices is None else indices
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(jnp.asarray(indices))
    return Training(jnp.asarray(present), keys, total)


@pytest.fixture(params=[(6, 5), (6, 4, 5), (6, 3, 2, 5)], ids=["vector", "sequence", "image"])
def x(request):
    x = np.random.default_rng(0).normal(3.0, 2.0, request.param).astype(np.float32)
    x[~PRESENT] = 1e6
    return x


def _variables(scale=2.0, bias=0.5):
    statistics = {"mean": jnp.full(5, 10.0), "variance": jnp.full(5, 4.0)}
    return {"params": {"scale": jnp.full(5, scale), "bias": jnp.full(5, bias)}, "batch_stats": statistics}


def _apply(x, training, variables=None):
    return BatchNorm().apply(variables or _variables(), x, training, mutable=["batch_stats"])


def test_training_normalises_by_the_observed_inputs_only(x):
    y, updates = _apply(x, _training(PRESENT))
    observed = x[PRESENT].reshape(-1, 5).astype(np.float64)
    mean, variance = observed.mean(axis=0), observed.var(axis=0)
    expected = 2.0 * (x[PRESENT] - mean) / np.sqrt(variance + 1e-5) + 0.5
    np.testing.assert_allclose(y[PRESENT], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(y[~PRESENT], np.full_like(x[~PRESENT], 0.5))
    moved = updates["batch_stats"]
    np.testing.assert_allclose(moved["mean"], 0.9 * 10 + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(moved["variance"], 0.9 * 4 + 0.1 * observed.var(axis=0, ddof=1), rtol=1e-4)


def test_nothing_observed_leaves_the_running_statistics(x):
    y, updates = _apply(x, _training(np.zeros(6, bool)))
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], _variables()["batch_stats"])
    assert np.isfinite(y).all()


def test_evaluation_uses_the_running_statistics_and_keeps_them(x):
    y, updates = _apply(x, None)
    np.testing.assert_allclose(y, 2.0 * (x - 10.0) / np.sqrt(4.0 + 1e-5) + 0.5, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], _variables()["batch_stats"])


def test_devices_share_sums_and_counts(x):
    """Two devices with four and two observed inputs: values, statistics and gradients as on one."""
    present = np.array([True, True, False, True, False, False])
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    x = np.where(np.isin(x, 1e6), 1.0, x).astype(np.float32)

    def loss(variables, x, training, weights):
        y, updates = _apply(x, training, variables)
        present = training.present.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.sum(jnp.where(present, weights * y, 0.0)), (y, updates)

    differentiated = jax.grad(loss, argnums=(0, 1), has_aux=True)
    expected, (y, updates) = differentiated(_variables(), x, _training(present), weights)

    def device(x, present, weights):
        total = lambda values: jax.lax.psum(values, "devices")
        gradients, aux = differentiated(_variables(), x, _training(present, total), weights)
        return (total(gradients[0]), gradients[1]), aux

    cut = lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:])
    spread = jax.vmap(device, axis_name="devices")(cut(x), cut(present), cut(weights))
    (of_params, of_x), (y_cut, updates_cut) = spread
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    close(y_cut.reshape(x.shape), y)
    close(of_x.reshape(x.shape), expected[1])
    jax.tree.map(lambda a, b: close(a[0], b), of_params["params"], expected[0]["params"])
    jax.tree.map(lambda a, b: close(a, np.stack([b, b])), updates_cut, updates)


def test_absent_inputs_get_and_give_no_gradient(x):
    loss = lambda x: jnp.sum(jnp.sin(_apply(x, _training(PRESENT))[0]))
    gradient = jax.grad(loss)(jnp.asarray(x))
    assert np.isfinite(gradient).all() and (gradient[~PRESENT] == 0).all() and (gradient[PRESENT] != 0).all()


class TwoDropouts(nn.Module):
    channels: bool = False

    @nn.compact
    def __call__(self, x, training=None):
        return Dropout(channels=self.channels)(x, training), Dropout(channels=self.channels)(x, training)


def test_dropout_keeps_the_mean_and_falls_out_by_value_or_channel():
    x = jnp.ones((40, 6, 7, 30))
    single, _ = TwoDropouts().apply({}, x, _training(np.ones(40, bool)))
    assert set(np.unique(single)) == {0.0, 2.0}
    np.testing.assert_allclose(single.mean(), 1.0, atol=0.03)  # 50,400 draws: 7 standard deviations
    whole, _ = TwoDropouts(channels=True).apply({}, x, _training(np.ones(40, bool)))
    assert (whole == whole[:, :1, :1]).all()
    np.testing.assert_allclose(whole.mean(), 1.0, atol=0.15)  # 1,200 draws: 5 standard deviations


def test_dropout_depends_on_the_input_and_the_layer_alone():
    x = jnp.ones((8, 100))
    first, second = TwoDropouts().apply({}, x, _training(np.ones(8, bool)))
    assert (first != second).any() and (first[0] != first[1]).any()
    part, _ = TwoDropouts().apply({}, x[:2], _training(np.ones(2, bool), indices=[5, 2]))
    np.testing.assert_array_equal(part, first[np.array([5, 2])])


def test_dropout_does_nothing_in_evaluation():
    x = jnp.ones((8, 100))
    for output in TwoDropouts().apply({}, x):
        np.testing.assert_array_equal(output, x)
