"""MMVM with a share of cross-reconstruction: what decoders read, where gradients go, and that it stays a bound."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_gaussian import LinearGaussian, hyper_of, make_batch, make_params, quick_jit
from scipy.stats import norm

from mmvm_jax import config as base_config
from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.distributions import gaussian_kl, sample, where_present
from mmvm_jax.errors import UserError
from mmvm_jax.objectives import mmvm
from mmvm_jax.objectives.method import check_method, final_hyper
from mmvm_jax.objectives.noise import random_member, random_subset
from mmvm_jax.types import Batch, DiagonalGaussian

NAMES = ("alpha", "beta", "gamma")
SHARES = ({}, {"cross_share": 0.4})
ALL_PATTERNS = np.array(list(itertools.product([True, False], repeat=3))).T


def loss(params, batch, share, **options):
    hyper = {name: jnp.asarray(value) for name, value in (hyper_of("mmvm") | share).items()}
    return mmvm.loss(jax.random.key(3), batch, LinearGaussian(params), hyper, mmvm.Options(**options))


def test_share_0_is_mmvm_to_the_bit():
    """In the configuration, where it is the same program, and as a number."""
    config = base_config.base()
    assert "cross_share" not in final_hyper(config.method)
    config.method.mmvm.cross_share = 0.2
    assert final_hyper(config.method)["cross_share"] == jnp.float32(0.2)
    config.method.mmvm.cross_share, config.method.mmvm.anneal_cross_share.shape = 0.0, "linear"
    assert "cross_share" in final_hyper(config.method)

    params = make_params(NAMES) | {"method": {}}
    batch = make_batch(params, ALL_PATTERNS)
    plain, zero = (loss(params, batch, share).loss for share in ({}, {"cross_share": 0.0}))  # eager: nothing is fused
    np.testing.assert_array_equal(plain, zero)


def test_a_single_observed_modality_has_no_share(x64):
    params = make_params(NAMES) | {"method": {}}
    batch = make_batch(params, ALL_PATTERNS)
    alone = ALL_PATTERNS.sum(axis=0) <= 1
    for source in mmvm.CROSS_SOURCES:
        losses = quick_jit(lambda: [loss(params, batch, share, cross_source=source).loss for share in SHARES])
        plain, crossed = losses()
        np.testing.assert_array_equal(plain[alone], crossed[alone])
        assert np.all(np.abs(plain - crossed)[~alone] > 1e-3)


def test_the_product_variant_is_its_formula(x64):
    """The loss of one example is that of some choice of a subset for each decoder; divergences by the pairs."""
    params = make_params(NAMES) | {"method": {}}
    batch = make_batch(params, np.ones((3, 1), bool))
    hyper = hyper_of("mmvm_cross")
    output, plain = quick_jit(lambda: [loss(params, batch, one, cross_source="product").terms for one in (hyper, {})])()
    q = LinearGaussian(params).encode(batch.inputs)
    share, alpha = hyper["cross_share"], hyper["alpha"]
    for m, name in enumerate(NAMES):
        others = [j for j in range(3) if j != m]
        candidates = []
        for members in ([others[0]], [others[1]], others):
            chosen = jax.tree.map(lambda leaf: leaf[np.array(members)], q)
            p = product_of_experts(chosen)
            to_h = (1 - alpha) * np.mean([gaussian_kl(p, jax.tree.map(lambda leaf: leaf[j], q)) for j in range(3)])
            candidates.append((1 - share) * plain[f"divergence/{name}"][0] + share * (to_h + alpha * gaussian_kl(p)[0]))
        assert np.min(np.abs(np.array(candidates) - output[f"divergence/{name}"][0])) < 1e-12


@pytest.mark.parametrize("choose", [random_member, random_subset])
def test_sources_are_uniform_among_the_other_observed(choose):
    num_examples = 20_000
    present = jnp.asarray(np.repeat([[True], [True], [True], [False]], num_examples, axis=1))
    batch = Batch({}, present, jnp.arange(num_examples), jnp.zeros(num_examples, int))
    functions = types.SimpleNamespace(names=("a", "b", "c", "d"), identifiers=jnp.arange(4, dtype=jnp.uint32))
    others = np.asarray(jax.jit(lambda key: mmvm._other_modalities(key, batch, functions, choose))(jax.random.key(0)))
    assert not others[3].any() and not others[np.arange(4), np.arange(4)].any()
    for decoder in range(3):
        members = [m for m in range(3) if m != decoder]
        codes = others[members, decoder].T @ [1, 2]
        allowed = [1, 2] if choose is random_member else [1, 2, 3]
        shares = np.array([np.mean(codes == code) for code in allowed])
        tolerance = 4 * np.sqrt(1 / len(allowed) / num_examples)
        np.testing.assert_allclose(shares, 1 / len(allowed), atol=tolerance)
    assert 0.4 < np.mean(others[2, 0] == others[2, 1]) < 0.7  # decoders choose by themselves


def test_product_latents_are_draws_from_the_products(x64):
    """Mean and variance of many draws, within what their number allows."""
    num_examples = 20_000
    one = make_params(NAMES)
    q = DiagonalGaussian(*(jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, 2))) for _ in range(2)))
    q = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_examples, axis=1), q)
    present = jnp.ones((3, num_examples), bool)
    batch = Batch({}, present, jnp.arange(num_examples), jnp.zeros(num_examples, int))
    others = jnp.asarray(np.repeat(~np.eye(3, dtype=bool)[..., None], num_examples, axis=2))
    hyper = {name: jnp.asarray(value) for name, value in hyper_of("mmvm").items()}
    arguments = (batch, LinearGaussian(one), hyper, mmvm.Options(), q, others)
    z, _ = jax.jit(lambda key: mmvm._from_products(key, *arguments))(jax.random.key(1))
    for decoder in range(3):
        members = np.array([m for m in range(3) if m != decoder])
        expected = product_of_experts(jax.tree.map(lambda leaf: leaf[members, 0], q))
        deviation = np.exp(expected.log_variance / 2)
        np.testing.assert_allclose(
            z[decoder].mean(axis=0), expected.mean, atol=(4 * deviation / num_examples**0.5).max()
        )
        np.testing.assert_allclose(z[decoder].std(axis=0) / deviation, 1, atol=4 / (2 * num_examples) ** 0.5)


def test_cross_likelihoods_move_the_source_and_the_decoder_not_the_own_encoder(x64):
    """At a share of 1 the likelihood of a modality has no gradient in its own encoder."""
    params = make_params(NAMES) | {"method": {}}
    batch = make_batch(params, np.ones((3, 4), bool))

    def likelihood(params, share, name):
        return jnp.sum(loss(params, batch, {"cross_share": share}).terms[f"log_likelihood/{name}"])

    moved = lambda tree: any(np.any(leaf) for leaf in jax.tree.leaves(tree))
    gradient_of = quick_jit(jax.grad(likelihood), static_argnums=2)
    for name in NAMES:
        gradient = gradient_of(params, 1.0, name)
        assert not moved(gradient["encoders"][name])
        assert any(moved(gradient["encoders"][other]) for other in NAMES if other != name)
        assert [moved(gradient["decoders"][other]) for other in NAMES] == [other == name for other in NAMES]
        assert moved(gradient_of(params, 0.5, name)["encoders"][name])


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("num_modalities", [2, 3, 5])
def test_the_divergence_left_out_is_bounded(num_modalities, alpha):
    """KL(o_m || h) <= log(M / ((M - 1) (1 - alpha))) by quadrature in one dimension, and the mixture's is convex."""
    generator, z = np.random.default_rng(num_modalities), np.linspace(-60, 60, 200_001)
    for spread in (0.1, 1.0, 10.0):
        means, deviations = (
            generator.normal(scale=spread, size=num_modalities),
            generator.uniform(0.3, 2, num_modalities),
        )
        q = norm.pdf(z[None], means[:, None], deviations[:, None])
        h = (1 - alpha) * q.mean(axis=0) + alpha * norm.pdf(z)
        kl = lambda p: np.trapezoid(p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(h, 1e-300))), z)
        other = q[1:].mean(axis=0)
        limit = np.log(num_modalities / ((num_modalities - 1) * (1 - alpha)))
        assert kl(other) <= limit + 1e-9
        assert kl(0.8 * q[0] + 0.2 * other) <= 0.8 * kl(q[0]) + 0.2 * kl(other) + 1e-9


@pytest.mark.parametrize("case", ["mmvm_cross", "mmvm_cross_product"])
def test_the_mean_over_draws_is_the_mean_over_sources(case, x64):
    """The likelihood term of one example against the exact expectation under the mixture of the other posteriors."""
    num_draws = 20_000
    params = make_params(NAMES) | {"method": {}}
    one = make_batch(params, np.ones((3, 1), bool))
    repeat = lambda leaf, axis=0: jnp.repeat(leaf, num_draws, axis=axis)
    many = Batch(
        {name: repeat(x) for name, x in one.inputs.items()},
        repeat(one.present, 1),
        jnp.arange(num_draws),
        repeat(one.labels),
    )
    options = {"cross_source": "product"} if "product" in case else {}
    terms = quick_jit(lambda: loss(params, many, {"cross_share": 1.0}, **options).terms)()
    model = LinearGaussian(params)
    q = where_present(one.present, model.encode(one.inputs))
    for m, name in enumerate(NAMES):
        others = [j for j in range(3) if j != m]
        sets = [[j] for j in others] + ([others] if options else [])
        draws = []
        for number, members in enumerate(sets):
            chosen = product_of_experts(jax.tree.map(lambda leaf: leaf[np.array(members), 0], q))
            draws.append(sample(jax.random.key(10 + number), chosen, num_draws))
        z = jnp.concatenate(draws)
        z_all = jnp.broadcast_to(z[None], (3, *z.shape))
        batch = jax.tree.map(lambda leaf: leaf, one)
        values = model.log_likelihood(batch, z_all[:, :, None])[m, :, 0]
        actual = terms[f"log_likelihood/{name}"]
        tolerance = 4 * (np.std(actual) / num_draws**0.5 + np.std(values) / len(values) ** 0.5)
        np.testing.assert_allclose(np.mean(actual), np.mean(values), atol=tolerance)


def test_a_gate_excludes_a_share():
    config = base_config.base()
    config.method.mmvm.cross_share, config.method.mmvm.gate = 0.2, "global"
    with pytest.raises(UserError, match="cross_share is 0.2 with gate=global"):
        check_method(config.method, 4)
