"""Random choices are uniform over the observed; posteriors, priors and draws are what each method says."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_gaussian import (
    CASES,
    HYPER,
    LinearGaussian,
    make_batch,
    make_case,
    make_params,
    quick_jit,
    with_method_params,
)
from scipy import stats

from mmvm_jax.objectives import METHODS, joint, mmvae_plus, mmvm
from mmvm_jax.objectives.noise import random_member, random_subset
from mmvm_jax.types import Batch, DiagonalGaussian

NAMES = ("alpha", "beta", "gamma")
EXAMPLES = 7000


def many(present_row):
    present = jnp.repeat(jnp.asarray(present_row)[:, None], EXAMPLES, axis=1)
    return Batch({}, present, jnp.arange(EXAMPLES), jnp.zeros(EXAMPLES, jnp.int32))


def counts(members):
    codes = (np.asarray(members) * (1 << np.arange(len(members)))[:, None]).sum(axis=0)
    return np.bincount(codes, minlength=1 << len(members))


@pytest.mark.parametrize("present", [(1, 1, 1), (1, 0, 1), (0, 1, 1), (0, 1, 0)])
def test_random_subset_is_uniform_over_the_observed(present):
    observed = np.flatnonzero(present)
    model = LinearGaussian(make_params(NAMES))
    drawn = counts(random_subset(jax.random.key(0), many(np.array(present, bool)), model))
    allowed = [sum(1 << m for m in s) for n in range(1, 4) for s in itertools.combinations(observed, n)]
    assert drawn.sum() == drawn[allowed].sum()  # never empty, never an absent member
    assert len(allowed) == 1 or stats.chisquare(drawn[allowed]).pvalue > 1e-3


@pytest.mark.parametrize("present", [(1, 1, 1), (1, 0, 1), (0, 1, 0)])
def test_random_member_is_uniform_over_the_observed(present):
    observed = np.flatnonzero(present)
    model = LinearGaussian(make_params(NAMES))
    drawn = counts(random_member(jax.random.key(0), many(np.array(present, bool)), model))
    assert drawn.sum() == drawn[1 << observed].sum()
    assert len(observed) == 1 or stats.chisquare(drawn[1 << observed]).pvalue > 1e-3


def test_nothing_is_chosen_where_nothing_is_observed():
    batch, model = many(np.zeros(3, bool)), LinearGaussian(make_params(NAMES))
    for choose in (random_subset, random_member):
        assert not np.any(choose(jax.random.key(0), batch, model))


@pytest.mark.parametrize(
    "case",
    ["independent", "average", "poe", "moe", "mopoe", "mvae", "mmvae_loose", "mmvm", "mmjsd"]
    + ["hellinger", "barycentre", "mixture_of_barycentres", "crmvae"],
)
def test_latents_of_the_loss_follow_the_posterior(case, x64):
    """Mean and variance of the latents that decoders read, over many examples with the same data."""
    params = make_params(NAMES)
    one = make_batch(params, np.array([[1], [1], [0]], bool))
    spread = lambda leaf, axis: jnp.repeat(leaf, EXAMPLES, axis=axis)
    inputs = {name: spread(x, 0) for name, x in one.inputs.items()}
    batch = Batch(inputs, spread(one.present, 1), jnp.arange(EXAMPLES), jnp.zeros(EXAMPLES, jnp.int32))
    module, options = make_case(case)
    model = LinearGaussian(params)

    @quick_jit
    def latents(params):
        model = LinearGaussian(params)
        module.loss(jax.random.key(1), batch, model, {name: jnp.asarray(v) for name, v in HYPER.items()}, options)
        return model.drawn[0]

    z = np.asarray(latents(params))
    mixture = module.posterior(model.encode(one.inputs), one.present, model, options)
    weights, means = np.exp(mixture.log_weights)[..., 0, None], np.asarray(mixture.components.mean)[..., 0, :]
    variances = np.exp(mixture.components.log_variance)[..., 0, :]
    mean = (weights * means).sum(0)
    second_moment = (weights * (variances + means**2)).sum(0)
    for decoder in range(2):
        row = decoder if len(mean) > 1 else 0
        drawn = z[decoder].reshape(-1, z.shape[-1])  # of MMVAE all sources, of MVAE the first, all observed
        drawn = z[decoder, :2].reshape(-1, z.shape[-1]) if case == "mmvae_loose" else drawn
        drawn = z[decoder, 0] if case in ("mvae", "crmvae") else drawn
        error = np.sqrt(second_moment[row].max() / EXAMPLES)
        np.testing.assert_allclose(drawn.mean(0), mean[row], atol=5 * error)
        np.testing.assert_allclose((drawn**2).mean(0), second_moment[row], rtol=0.15)


@pytest.mark.parametrize(
    "case",
    ["independent", "mopoe", "mvae", "mmvae_loose", "mmvae_plus", "mmvae_plus_laplace", "meme"]
    + ["mixture_of_barycentres", "mmvae_plus_clusters"],
)
def test_draws_follow_the_posterior_for_any_subset(case, x64):
    params = make_params(NAMES)
    one = make_batch(params, np.ones((3, 1), bool))
    params = with_method_params(params, case, one)
    module, options = make_case(case)
    model = LinearGaussian(params)
    posteriors = model.encode(one.inputs)
    repeat = lambda leaf: jnp.repeat(leaf, EXAMPLES, axis=2)
    draw = quick_jit(lambda mixture: module.draw(jax.random.key(2), jnp.arange(EXAMPLES), mixture, options))
    for present in ((1, 0, 1), (0, 0, 0)):
        mixture = module.posterior(posteriors, jnp.array(present, bool)[:, None], model, options)
        np.testing.assert_allclose(np.exp(mixture.log_weights).sum(0), 1.0, rtol=1e-12)
        z = np.asarray(draw(jax.tree.map(repeat, mixture)))
        weights, means = (
            np.exp(mixture.log_weights)[..., 0, None],
            np.asarray(mixture.components.mean)[..., 0, :],
        )
        second = np.exp(mixture.components.log_variance)[..., 0, :] + means**2
        np.testing.assert_allclose(z.mean(1), (weights * means).sum(0), atol=0.1)
        # The square of a Laplace number has a variance of five times its squared mean, that of a normal one twice.
        tolerance = 5 * math.sqrt(5 / EXAMPLES)
        np.testing.assert_allclose((z**2).mean(1), (weights * second).sum(0), rtol=tolerance)
        if present == (0, 0, 0) and "clusters" not in case:
            np.testing.assert_allclose((z**2).mean(1), 2.0 if "laplace" in case else 1.0, rtol=tolerance)


@pytest.mark.parametrize("case", ["mmvm", "mmvm_global", "meme"])
def test_absent_modalities_are_filled_in_from_one_source(case, x64):
    """They read the one latent of a source; an observed modality reads its own, which is that one if it is the source.

    Far posteriors tell which source a latent is from. How often each is chosen, and the mean and variance of what is
    drawn from it, are those of the mixture.
    """
    names = ("alpha", "beta", "delta", "epsilon")
    present = jnp.repeat(jnp.array([[True], [True], [False], [False]]), EXAMPLES, axis=1)
    means = jnp.array([10.0, -10.0, 0.0, 0.0])[:, None, None]
    q = DiagonalGaussian(jnp.broadcast_to(means, (4, EXAMPLES, 3)), jnp.full((4, EXAMPLES, 3), math.log(4.0)))
    method = {"output": jnp.log(jnp.array([3.0, 1.0, 1.0, 1.0]))} if case == "mmvm_global" else {}
    model = LinearGaussian({"method": method}, names)
    module, options = make_case(case)

    @quick_jit
    def draw(q, present):
        mixture = module.posterior(q, present, model, options)
        return module.draw(jax.random.key(5), jnp.arange(EXAMPLES), mixture, options)

    z = np.asarray(draw(q, present))
    np.testing.assert_array_equal(z[2], z[3])
    from_first = z[2, :, 0] > 0
    np.testing.assert_array_equal(z[2], np.where(from_first[:, None], z[0], z[1]))
    weight = 0.75 if case == "mmvm_global" else 0.5
    assert stats.binomtest(int(from_first.sum()), EXAMPLES, weight).pvalue > 1e-3
    for row, mean in ((0, 10.0), (1, -10.0)):
        np.testing.assert_allclose(z[row].mean(axis=0), mean, atol=5 * 2.0 / EXAMPLES**0.5)
        np.testing.assert_allclose(z[row].var(axis=0), 4.0, rtol=5 * (2 / EXAMPLES) ** 0.5)
    noise = (z[:2] - means[:2]).reshape(2, -1)
    assert abs(np.corrcoef(noise)[0, 1]) < 5 / noise.shape[1] ** 0.5  # own latents are drawn independently


@pytest.mark.parametrize(
    "case",
    ["independent", "moe", "mopoe", "mmvae_loose", "mmvae_plus", "mmvm", "meme", "mmjsd", "mixture_of_barycentres"],
)
def test_draws_go_by_names_not_by_order_or_company(case, x64):
    """In another order the modalities have the same draws, and so they have without one that is absent."""
    params = make_params(NAMES)
    batch = make_batch(params, np.array([[1, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 1]], bool))
    module, options = make_case(case)

    def draws(names, rows, draw_prior):
        method = {"mean": jnp.ones((len(names), 1)), "log_variance": jnp.zeros((len(names), 1))}
        model = LinearGaussian(params | {"method": method}, names)
        if case == "meme":
            pseudo = {name: jnp.ones((4, x.shape[1])) * jnp.arange(4.0)[:, None] for name, x in batch.inputs.items()}
            model.params["method"] = {"pseudo_inputs": pseudo, "pseudo_tokens": {}}
        if draw_prior:
            mixture = module.prior(model, options, 4, 3)
        else:
            mixture = module.posterior(model.encode(batch.inputs), batch.present[rows], model, options)
        return quick_jit(lambda m: module.draw(jax.random.key(6), batch.index, m, options))(mixture)

    everyone, turned = np.arange(3), np.array([2, 0, 1])
    of_row = lambda z, rows: jnp.broadcast_to(z, (len(rows), *z.shape[1:]))
    for draw_prior in (False, True):
        if draw_prior and CASES[case][0] == "mmvm":
            continue
        straight = of_row(draws(NAMES, everyone, draw_prior), everyone)
        other = of_row(draws(tuple(NAMES[row] for row in turned), turned, draw_prior), turned)
        np.testing.assert_allclose(other, straight[turned], rtol=1e-12)
    pair = of_row(draws(NAMES[:2], everyone[:2], False), everyone[:2])
    np.testing.assert_allclose(pair[:, :3], of_row(draws(NAMES, everyone, False), everyone)[:2, :3], rtol=1e-12)


@pytest.mark.parametrize("name", mmvae_plus.LATENT_DISTRIBUTIONS)
def test_clusters_are_the_prior_of_the_shared_latent(name, x64):
    """Of draws given nothing, and of the ratio of prior and posterior."""
    params, means, logits = make_params(NAMES), np.array([[-3.0, 0.0], [2.0, 5.0]]), np.array([0.0, math.log(3.0)])
    options = mmvae_plus.Options(private_dim=1, latent_distribution=name, clusters=2)
    clusters = {"mean": jnp.asarray(means), "logits": jnp.asarray(logits)}
    model = LinearGaussian(params | {"method": {"log_variance": jnp.zeros((3, 1)), "clusters": clusters}})
    components, log_weights, _ = mmvae_plus.prior(model, options, 2, 3)
    variance = 1.0 if name == "normal" else 2.0
    np.testing.assert_allclose(np.exp(log_weights), np.tile(np.array([0, 0, 0, 0.25, 0.75])[:, None, None], (3, 2)))
    np.testing.assert_array_equal(components.mean[3:, :, :, 1:], np.tile(means[:, None, None], (1, 3, 2, 1)))
    np.testing.assert_allclose(np.exp(components.log_variance[3:]), variance, rtol=1e-5)
    assert not components.mean[3:, :, :, 0].any()  # the private latents have the standard prior

    batch = make_batch(params, np.array([[1], [1], [0]], bool))
    mixture = mmvae_plus.posterior(model.encode(batch.inputs), batch.present, model, options)
    z = mmvae_plus.draw(jax.random.key(0), batch.index, mixture, options)
    shared, private = mmvae_plus.log_prior_ratio(mixture, z, model, options)
    density = stats.norm if name == "normal" else stats.laplace
    scale = lambda log_variance: np.exp(0.5 * log_variance) / density().std()
    of = lambda k, m, part: density(
        mixture.components.mean[k, m, 0, part], scale(mixture.components.log_variance[k, m, 0, part])
    )
    u, w = slice(1, None), slice(1)
    log_q = math.log(np.mean([of(k, 0, u).pdf(z[0, 0, u]).prod() for k in range(2)]))
    log_p = math.log(sum(share * density(mean).pdf(z[0, 0, u]).prod() for share, mean in zip((0.25, 0.75), means)))
    np.testing.assert_allclose(shared, [log_p - log_q], rtol=1e-10)
    own = [density().logpdf(z[m, 0, w]) - of(0, m, w).logpdf(z[m, 0, w]) for m in range(3)]
    np.testing.assert_allclose(private, own, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", mmvae_plus.LATENT_DISTRIBUTIONS)
def test_latents_of_mmvae_plus_have_the_distribution_asked_for(name, x64):
    """Normal and Laplace ones have the same first two moments; a Kolmogorov-Smirnov test tells them apart."""
    params = make_params(NAMES)
    batch = make_batch(params, np.ones((3, 1), bool))
    options = mmvae_plus.Options(private_dim=1, num_samples=5000, latent_distribution=name)
    model = LinearGaussian(with_method_params(params, f"mmvae_plus{'_laplace' * (name == 'laplace')}", batch))
    mmvae_plus.loss(jax.random.key(4), batch, model, HYPER, options)
    (z,) = model.drawn  # [M, M, S, 1, D]
    standardised = stats.zscore(np.asarray(z)[np.arange(3), np.arange(3), :, 0], axis=1).reshape(3, 5000, -1)
    p_values = {
        other: stats.kstest(standardised, distribution.cdf, axis=1).pvalue
        for other, distribution in (("normal", stats.norm), ("laplace", stats.laplace(scale=0.5**0.5)))
    }
    assert p_values.pop(name).min() > 1e-3
    assert next(iter(p_values.values())).max() < 1e-4


def test_draw_of_mmvae_plus_shares_u_and_not_w():
    params = make_params(NAMES)
    model = LinearGaussian(params | {"method": {"log_variance": jnp.zeros((3, 1)), "mean": jnp.ones((3, 1))}})
    options = mmvae_plus.Options(private_dim=1)
    mixture = mmvae_plus.prior(model, options, 50, 3)
    z = quick_jit(lambda: mmvae_plus.draw(jax.random.key(0), jnp.arange(50), mixture, options))()
    np.testing.assert_array_equal(z[0, :, 1:], z[1, :, 1:])
    assert np.all(z[0, :, 0] != z[1, :, 0])
    # The private latent of an absent modality: from the prior, or on demand from the auxiliary prior.
    q = DiagonalGaussian(jnp.full((3, 1, 3), 5.0), jnp.zeros((3, 1, 3)))
    present = jnp.array([[True], [True], [False]])
    for absent_private, expected in (("prior", 0.0), ("auxiliary", 1.0)):
        options = mmvae_plus.Options(private_dim=1, absent_private=absent_private)
        means = mmvae_plus.posterior(q, present, model, options).components.mean[0, :, 0, 0]
        np.testing.assert_array_equal(means, [5.0, 5.0, expected])


@pytest.mark.parametrize(
    "case",
    ["independent", "mopoe", "mvae", "mmvae_loose", "mmvae_plus", "mmvm", "meme", "mmjsd"]
    + ["hellinger", "barycentre", "mixture_of_barycentres", "crmvae", "mmvae_plus_clusters"],
)
def test_every_method_answers_posterior_prior_and_draw(case):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), make_params(NAMES))
    batch = make_batch(params, np.ones((3, 2), bool))
    params = with_method_params(params, case, batch)
    module, options = make_case(case)
    model = LinearGaussian(params)
    mixture = module.posterior(model.encode(batch.inputs), batch.present, model, options)
    mixtures = [mixture, module.prior(model, options, 2, 3)]
    assert (mixtures[1] is None) == (CASES[case][0] == "mmvm")
    for mixture in mixtures[: 1 if mixtures[1] is None else 2]:
        z = quick_jit(lambda mixture: module.draw(jax.random.key(0), batch.index, mixture, options))(mixture)
        assert z.shape == mixture.components.mean.shape[1:] and z.shape[0] in (1, 3) and np.all(np.isfinite(z))
        np.testing.assert_allclose(np.exp(mixture.log_weights).sum(axis=0), 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", joint.AGGREGATIONS)
def test_the_loss_draws_from_a_component_of_the_posterior(name, x64, monkeypatch):
    params, patterns = make_params(NAMES), np.array(list(itertools.product([True, False], repeat=3))).T
    batch, model, options = make_batch(params, patterns), LinearGaussian(params), joint.Options(aggregation=name)
    drawn = []
    monkeypatch.setattr(joint, "sample", lambda keys, q: drawn.append(q) or q.mean)
    joint.loss(jax.random.key(3), batch, model, HYPER, options)
    components, log_weights, _ = joint.posterior(model.encode(batch.inputs), batch.present, model, options)
    same = [np.isclose(all_of[:, 0], one[None], rtol=1e-9).all(axis=-1) for all_of, one in zip(components, drawn[0])]
    assert np.all(np.any(same[0] & same[1] & (np.asarray(log_weights)[:, 0] > -np.inf), axis=0))


def test_weights_of_the_gate_are_those_of_the_posterior_of_an_absent_modality(x64):
    params = make_params(NAMES) | {"method": {"output": jnp.array([1.0, 0.0, 3.0])}}
    model = LinearGaussian(params)
    q = DiagonalGaussian(jnp.zeros((3, 1, 3)), jnp.zeros((3, 1, 3)))
    present = jnp.array([[True], [True], [False]])
    weights = lambda **options: np.exp(mmvm.posterior(q, present, model, mmvm.Options(**options)).log_weights)[:, 2, 0]
    np.testing.assert_allclose(weights(gate="global"), [math.e / (1 + math.e), 1 / (1 + math.e), 0.0])
    np.testing.assert_allclose(weights(gate="global", hard=True), [1.0, 0.0, 0.0])
    np.testing.assert_allclose(weights(gate="none", num_experts=1), [0.5, 0.5, 0.0])


def test_the_divergence_of_mmvm_is_a_mean_over_its_samples(x64):
    """Its variance falls with their number: by 100 where draws are independent; 20 keys tell that from none."""
    params = make_params(NAMES)
    batch, model = make_batch(params, np.ones((3, 1), bool)), LinearGaussian(params)

    @functools.partial(quick_jit, static_argnums=1)
    def divergence(key, num_samples):
        options = mmvm.Options(estimator="monte_carlo", num_samples=num_samples)
        hyper = {name: jnp.asarray(value) for name, value in HYPER.items()}
        return mmvm.loss(key, batch, model, hyper, options).terms["divergence/alpha"][0]

    keys = jax.random.split(jax.random.key(0), 20)
    one, many = (np.var([divergence(key, number) for key in keys]) for number in (1, 100))
    assert 30 < one / many < 300


def test_mmvm_is_independent_at_alpha_one_and_free_of_divergence_when_alone(x64):
    params = make_params(NAMES)
    batch = make_batch(params, np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1]], bool))
    model = LinearGaussian(params)
    key, hyper = jax.random.key(0), {"beta": jnp.asarray(0.7), "temperature": jnp.asarray(1.5)}
    module = METHODS["independent"]
    independent = quick_jit(lambda: module.loss(key, batch, model, hyper, module.Options()))()
    terms = quick_jit(
        lambda alpha, options: mmvm.loss(key, batch, model, hyper | {"alpha": alpha}, options).terms,
        static_argnums=1,
    )
    for estimator in ("pairwise", "variational", "monte_carlo"):
        at_zero, at_one = (terms(alpha, mmvm.Options(estimator=estimator)) for alpha in (0.0, 1.0))
        if estimator != "monte_carlo":
            for name in NAMES:
                term = f"divergence/{name}"
                np.testing.assert_allclose(at_one[term], independent.terms[term], rtol=1e-12)
        alone = np.array([at_zero["divergence/alpha"][1], at_zero["divergence/gamma"][2]])
        assert np.all(np.abs(alone) <= (1e-14 if estimator == "monte_carlo" else 0.0))


def test_the_product_posterior_of_mmvm_is_that_of_bayes_rule(x64):
    rng = np.random.default_rng(0)
    slopes, noise = rng.normal(size=(3, 1, 2)), 0.5 + rng.random((3, 1, 2))  # x_m = slope z + noise, entry by entry
    z = rng.normal(size=(1, 5, 2))
    x = slopes * z + noise * rng.normal(size=(3, 5, 2))
    precision = lambda chosen: 1.0 + ((slopes / noise) ** 2)[chosen].sum(axis=0)
    mean = lambda chosen: (slopes * x / noise**2)[chosen].sum(axis=0) / precision(chosen)
    alone = [DiagonalGaussian(mean([m]), np.broadcast_to(-np.log(precision([m])), (5, 2))) for m in range(3)]
    posteriors = jax.tree.map(lambda *rows: jnp.stack(rows), *alone)
    model, options = LinearGaussian(make_params(NAMES)), mmvm.Options(posterior="product")
    for chosen in ([0, 1, 2], [0, 2], [1]):
        present = jnp.repeat(jnp.isin(jnp.arange(3), jnp.array(chosen))[:, None], 5, axis=1)
        mixture = mmvm.posterior(posteriors, present, model, options)
        assert mixture.components.mean.shape == (1, 1, 5, 2)
        np.testing.assert_allclose(mixture.components.mean[0, 0], mean(chosen), rtol=1e-12)
        np.testing.assert_allclose(np.exp(-mixture.components.log_variance[0, 0]), np.tile(precision(chosen), (5, 1)))
    nothing = mmvm.posterior(posteriors, jnp.zeros((3, 5), bool), model, options).components
    assert not nothing.mean.any() and not nothing.log_variance.any()
    wide = posteriors._replace(log_variance=jnp.full((3, 5, 2), 2.0))  # wider than the prior
    broad = mmvm.posterior(wide, jnp.ones((3, 5), bool), model, options).components
    np.testing.assert_allclose(broad.log_variance, 2.0)
