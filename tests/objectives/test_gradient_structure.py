"""Where each objective lets gradients flow, and where it must not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_gaussian import (
    HYPER,
    LinearGaussian,
    loss_and_gradient,
    loss_of,
    make_batch,
    make_params,
    quick_jit,
    with_method_params,
)

from mmvm_jax.distributions import gaussian_kl
from mmvm_jax.objectives import meme, mmvae_plus, mmvm
from mmvm_jax.types import DiagonalGaussian

NAMES = ("alpha", "beta", "gamma")


def prepared(case, present):
    start = make_params(NAMES)
    batch = make_batch(start, present)
    return with_method_params(start, case, batch), batch


def is_zero(tree):
    return not any(np.any(leaf) for leaf in jax.tree.leaves(tree))


def test_stopped_prior_leaves_each_posterior_its_own_divergence_only(x64):
    present = np.ones((3, 2), bool)
    params, batch = prepared("mmvm_stopped", present)

    def by_hand(params):
        """Pairwise divergence, the second argument constant."""
        q = LinearGaussian(params).encode(batch.inputs)
        fixed = jax.lax.stop_gradient(q)
        pair = lambda leaf, axis: jnp.expand_dims(leaf, axis)
        kls = gaussian_kl(jax.tree.map(lambda x: pair(x, 1), q), jax.tree.map(lambda x: pair(x, 0), fixed))
        return jnp.sum((1 - HYPER["alpha"]) * jnp.mean(kls, axis=1) + HYPER["alpha"] * gaussian_kl(q))

    def divergence(case):
        def total(params):
            hyper = {name: jnp.asarray(value) for name, value in HYPER.items()}
            options = mmvm.Options(stop_prior_gradient=case == "mmvm_stopped")
            terms = mmvm.loss(jax.random.key(0), batch, LinearGaussian(params), hyper, options).terms
            return sum(jnp.sum(terms[f"divergence/{name}"]) for name in NAMES)

        return quick_jit(jax.grad(total))(params)["encoders"]

    expected = quick_jit(jax.grad(by_hand))(params)["encoders"]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    jax.tree.map(close, divergence("mmvm_stopped"), expected)
    with pytest.raises(AssertionError):
        jax.tree.map(close, divergence("mmvm"), expected)


def test_private_latents_are_hidden_from_other_decoders(x64):
    """The gradient of decoder n's likelihood with respect to [w_m, u_m] is zero in w_m unless n = m."""
    z = jax.random.normal(jax.random.key(0), (3, 2, 4, 3))  # [M, S, B, D], private_dim 1
    others = jax.random.normal(jax.random.key(1), (3, 3, 2, 4, 1))
    jacobian = jax.jacobian(lambda z: jnp.sum(mmvae_plus._as_read(z, others), axis=(1, 2, 3)))(z)  # [3, D, *z]
    private, shared = np.abs(jacobian[..., :1]).sum((1, 3, 4, 5)), np.abs(jacobian[..., 1:]).sum((1, 3, 4, 5))
    np.testing.assert_array_equal(private > 0, np.eye(3, dtype=bool))
    assert np.all(shared > 0)


def test_auxiliary_priors_learn_from_other_modalities_samples_only(x64):
    # An example with one observed modality has no other source, so r_n is never used.
    params, batch = prepared("mmvae_plus", np.eye(3, dtype=bool))
    assert is_zero(loss_and_gradient("mmvae_plus", params, batch)[1]["method"])
    params, batch = prepared("mmvae_plus", np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0]], bool))
    gradient = loss_and_gradient("mmvae_plus", params, batch)[1]["method"]
    for leaf in gradient.values():
        assert np.all(np.any(leaf[:2] != 0, axis=1)) and not np.any(leaf[2])


def test_weight_of_meme_carries_no_gradient(x64, monkeypatch):
    """The gradient is that of the bound with the weight given as a number."""
    params, batch = prepared("meme", np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1]], bool))
    stop, seen = jax.lax.stop_gradient, []

    def gradient_if_stopped_by(function):
        def total(params):
            seen.clear()
            monkeypatch.setattr(jax.lax, "stop_gradient", lambda value: seen.append(function(value)) or seen[-1])
            values = loss_of("meme", params, batch)
            return values.sum(), seen[0]

        gradient, weight = quick_jit(jax.grad(total, has_aux=True))(params)
        assert len(seen) == 1
        return gradient, weight

    gradient, weight = gradient_if_stopped_by(stop)
    assert np.all(weight <= 3 + 1e-9)  # K + 1
    constant, _ = gradient_if_stopped_by(lambda value: jnp.asarray(weight))
    flowing, _ = gradient_if_stopped_by(lambda value: value)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    jax.tree.map(close, gradient, constant)
    with pytest.raises(AssertionError):
        jax.tree.map(close, gradient, flowing)


def test_pseudo_inputs_of_meme_stand_in_for_the_absent_only(x64):
    params, batch = prepared("meme", np.array([[1, 1], [1, 1], [0, 1]], bool))
    assert is_zero(loss_and_gradient("meme", params, batch)[1]["method"])
    params, batch = prepared("meme", np.array([[1, 1], [0, 0], [0, 0]], bool))
    gradient = loss_and_gradient("meme", params, batch)[1]
    pseudo = gradient["method"]["pseudo_inputs"]
    assert is_zero(pseudo["alpha"]) and not is_zero(pseudo["beta"]) and not is_zero(pseudo["gamma"])
    assert is_zero([gradient["decoders"]["beta"], gradient["decoders"]["gamma"]])
    # The encoders of the absent learn from the pseudo-inputs, as in the paper.
    assert not is_zero(gradient["encoders"]["beta"]["matrix"])


def test_pseudo_inputs_start_from_observed_examples(x64):
    params = make_params(NAMES)
    batch = make_batch(params, np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0]], bool))
    options = meme.Options(num_pseudo_inputs=4)
    started = meme.init(jax.random.key(0), batch, LinearGaussian(params), options)["pseudo_inputs"]
    np.testing.assert_array_equal(started["alpha"], batch.inputs["alpha"][np.array([0, 2, 0, 2])])
    np.testing.assert_array_equal(started["beta"], batch.inputs["beta"][np.array([0, 1, 2, 0])])
    assert len(np.unique(started["gamma"], axis=0)) == 4


def test_token_ids_stay_what_they_start_from(x64):
    class Reader(LinearGaussian):
        """One that reads token ids where ``gamma`` stands."""

        def encode(self, inputs):
            assert inputs["gamma"].dtype == jnp.int32
            return super().encode(inputs)

    params = make_params(NAMES)
    batch = make_batch(params, np.array([[1, 1], [0, 0], [0, 1]], bool))
    batch.inputs["gamma"] = jnp.arange(8, dtype=jnp.int32).reshape(2, 4)
    started = meme.init(jax.random.key(0), batch, Reader(params), meme.Options(num_pseudo_inputs=2))
    np.testing.assert_array_equal(started["pseudo_tokens"]["gamma"], [[4, 5, 6, 7], [4, 5, 6, 7]])
    hyper = {name: jnp.asarray(value) for name, value in HYPER.items()}

    def loss(method):
        model = Reader(params | {"method": method})
        return meme.loss(jax.random.key(0), batch, model, hyper, meme.Options(num_pseudo_inputs=2)).loss[0]

    gradient = quick_jit(jax.grad(loss))(started)
    assert is_zero(gradient["pseudo_tokens"]) and not is_zero(gradient["pseudo_inputs"]["beta"])


def test_hard_gate_learns_straight_through(x64):
    """Posteriors feel the one expert kept, the gate soft weights v in sum_j v_j KL(q_m || q_j)."""
    q = DiagonalGaussian(*(jax.random.normal(jax.random.key(i), (3, 1, 3)) for i in range(2)))
    params = make_params(NAMES)
    batch = make_batch(params, np.ones((3, 1), bool))
    output = jnp.array([0.3, -0.2, 0.1])
    kls = gaussian_kl(jax.tree.map(lambda leaf: leaf[:, None], q), jax.tree.map(lambda leaf: leaf[None], q))[..., 0]

    class Fixed(LinearGaussian):
        def encode(self, inputs):
            return q

    def divergence(output):
        model = Fixed(params | {"method": {"output": output}})
        hyper = {"beta": jnp.asarray(1.0), "alpha": jnp.asarray(0.0), "temperature": jnp.asarray(1.0)}
        terms = mmvm.loss(jax.random.key(0), batch, model, hyper, mmvm.Options(gate="global", hard=True)).terms
        return sum(terms[f"divergence/{name}"][0] for name in NAMES)

    value, gradient = quick_jit(jax.value_and_grad(divergence))(output)
    np.testing.assert_allclose(value, kls[:, 0].sum(), rtol=1e-12)  # all compared with the first, of largest weight
    soft = jax.grad(lambda output: jnp.sum(jax.nn.softmax(output)[None] * kls))(output)
    np.testing.assert_allclose(gradient, soft, rtol=1e-10)
    assert np.all(gradient != 0)


@pytest.mark.parametrize("hard", [False, True])
def test_the_weights_of_a_gate_that_should_not_teach_encoders(x64, hard):
    """Though they read the posteriors, those are taught as if the weights were given."""
    normal = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    q = DiagonalGaussian(normal(0, 3, 1, 2), normal(1, 3, 1, 2))
    gate = {"input": normal(2, 3, 2, 64), "bias": normal(3, 64), "output": normal(4, 3, 64)}
    params = make_params(NAMES, latent_dim=2) | {"method": gate}
    batch = make_batch(params, np.ones((3, 1), bool))
    options = mmvm.Options(gate="per_example", hard=hard, stop_prior_gradient=not hard)
    hyper = {"beta": jnp.asarray(1.0), "alpha": jnp.asarray(0.0), "temperature": jnp.asarray(1.0)}

    def divergence(q):
        model = LinearGaussian(params)
        object.__setattr__(model, "encode", lambda inputs: q)
        terms = mmvm.loss(jax.random.key(0), batch, model, hyper, options).terms
        return sum(terms[f"divergence/{name}"][0] for name in NAMES)

    hidden = np.tanh(np.einsum("mbd,mdh->h", q.mean, gate["input"]) + gate["bias"])
    scores = np.asarray(gate["output"] @ hidden)

    def by_hand(q):
        others = q if hard else jax.lax.stop_gradient(q)
        kls = gaussian_kl(*(jax.tree.map(lambda x: jnp.expand_dims(x, axis), p) for axis, p in ((1, q), (0, others))))
        weights = np.eye(3)[scores.argmax()] if hard else np.exp(scores) / np.exp(scores).sum()
        return jnp.sum(weights[None] * kls[..., 0])

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, quick_jit(jax.grad(divergence))(q), jax.grad(by_hand)(q))


@pytest.mark.parametrize("gate", ["global", "per_example"])
def test_gate_starts_uniform_and_learns(gate, x64):
    params = make_params(NAMES)
    batch = make_batch(params, np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], bool))
    gated, plain = mmvm.Options(gate=gate), mmvm.Options()
    started = mmvm.init(jax.random.key(0), batch, LinearGaussian(params), gated)
    params["method"] = jax.tree.map(lambda leaf: leaf.astype(float), started)
    hyper = {name: jnp.asarray(value) for name, value in HYPER.items()}

    def loss(params, options):
        return mmvm.loss(jax.random.key(0), batch, LinearGaussian(params), hyper, options).loss.sum()

    value, gradient = quick_jit(jax.value_and_grad(loss), static_argnums=1)(params, gated)
    np.testing.assert_allclose(value, quick_jit(loss, static_argnums=1)(params, plain), rtol=1e-12)
    assert np.any(gradient["method"]["output"])
    if gate == "per_example":  # whose inputs keep their scale
        scale = np.mean(started["input"] ** 2) * started["input"].shape[1]
        np.testing.assert_allclose(scale, 1.0, atol=4 * math.sqrt(2 / started["input"].size))
