import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.networks import bank, mlp, small_cnn

MODULES = {"mlp": mlp.Encoder(4, (16,)), "small_cnn": small_cnn.Encoder(4, (8, 16))}
M, N, SHAPE = 3, 5, (9, 8, 3)


def _setup(name):
    keys = jnp.stack([jax.random.key(seed) for seed in (11, 22, 33)])
    inputs = jax.random.normal(jax.random.key(0), (M, N, *SHAPE))
    return MODULES[name], keys, inputs


def _slice(tree, m):
    return jax.tree.map(lambda leaf: leaf[m], tree)


def _assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


@pytest.mark.parametrize("name", MODULES)
def test_initial_variables_depend_on_the_own_key_only(name):
    module, keys, inputs = _setup(name)
    variables = bank.init_bank(module, keys, inputs[0])
    for m in range(M):
        _assert_close(_slice(variables, m), jax.jit(module.init)(keys[m], inputs[0]))
    reordered = bank.init_bank(module, keys[::-1][:2], inputs[0])
    jax.tree.map(np.testing.assert_array_equal, _slice(reordered, 0), _slice(variables, 2))
    jax.tree.map(np.testing.assert_array_equal, _slice(reordered, 1), _slice(variables, 1))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("apply", [*bank.APPLY.values(), bank.apply_bank])
def test_bank_equals_single_applications(name, apply):
    module, keys, inputs = _setup(name)
    variables = bank.init_bank(module, keys, inputs[0])

    def bank_loss(variables):
        outputs = apply(module, variables, inputs)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in outputs), outputs

    gradients, outputs = jax.jit(jax.grad(bank_loss, has_aux=True))(variables)
    for m in range(M):

        def single_loss(variables):
            outputs = module.apply(variables, inputs[m])
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in outputs), outputs

        expected = jax.jit(jax.grad(single_loss, has_aux=True))(_slice(variables, m))
        _assert_close((_slice(gradients, m), _slice(outputs, m)), expected)


@pytest.mark.parametrize("number", [1, 2, 10])
@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_arrangements_are_known(backend, number):
    assert bank.arrangement(backend, number) in bank.APPLY


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on a CPU")
def test_the_weights_of_a_network_alone_are_not_transposed():
    module = mlp.Encoder(4, (256,))
    inputs = jnp.zeros((1, N, 256))
    variables = bank.init_bank(module, jax.random.split(jax.random.key(0), 1), inputs[0])

    def loss(variables, inputs):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in bank.apply_bank(module, variables, inputs))

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(variables, inputs).compile().as_text()
    assert not re.search(r"f32\[(1,)?256,256\]\S* (transpose|copy)\(", program)
