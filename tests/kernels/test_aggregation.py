"""Aggregations against oracles and quadrature, and their limits, masks and order."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats

from mmvm_jax.aggregation import (
    average_of_experts,
    barycentre_of_experts,
    hellinger_of_experts,
    joint_mixture,
    mixture_of_barycentres,
    mixture_of_experts,
    mixture_of_products,
    product_of_experts,
    subset_barycentres,
    subset_mask,
    subset_posteriors,
    subsets,
)
from mmvm_jax.types import DiagonalGaussian

PRESENT = np.array([[0, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]], bool)
MERGERS = {
    "average": average_of_experts,
    "product": product_of_experts,
    "product_with_prior": functools.partial(product_of_experts, prior_expert=True),
    "barycentre": barycentre_of_experts,
    "hellinger": hellinger_of_experts,
}


def experts_of(oracle):
    return DiagonalGaussian(jnp.asarray(oracle["mean"]), jnp.asarray(oracle["log_variance"]))


def select(gaussian, index):
    return DiagonalGaussian(*(leaf[index] for leaf in gaussian))


def check_gaussian(precision, actual, expected):
    precision.check(actual.mean, expected[0])
    precision.check(actual.log_variance, expected[1])


@pytest.mark.parametrize("masked", ["all", "masked"])
@pytest.mark.parametrize("prior", [False, True])
def test_product_meets_the_oracle(masked, prior, oracles, precision):
    oracle = oracles["product_of_experts"]
    expected = oracle[f"{masked}_{'prior' if prior else 'no_prior'}"]
    present = jnp.asarray(oracle["mask"], bool) if masked == "masked" else None
    actual = product_of_experts(experts_of(oracle), present, prior_expert=prior)
    check_gaussian(precision, actual, (expected["mean"], expected["log_variance"]))


def test_the_prior_expert_is_one_more_expert(random_gaussian, x64):
    experts = random_gaussian(50, 3, 6, 2)
    standard = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:1]), experts)
    extended = DiagonalGaussian(*map(lambda *parts: jnp.concatenate(parts), experts, standard))
    actual = product_of_experts(experts, PRESENT, prior_expert=True)
    expected = product_of_experts(extended, np.vstack([PRESENT, np.ones((1, 6), bool)]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), actual, expected)


def test_average_is_of_means_and_of_variances(random_gaussian, precision):
    experts = random_gaussian(51, 3, 6, 2)
    mean, variance = np.float64(experts.mean), np.exp(np.float64(experts.log_variance))
    check_gaussian(precision, average_of_experts(experts), (mean.mean(0), np.log(variance.mean(0))))


def test_quantiles_of_the_barycentre_are_averages(random_gaussian, x64):
    """This defines the 2-Wasserstein barycentre of densities on the line."""
    experts, levels = random_gaussian(60, 3, 6, 1), np.linspace(0.01, 0.99, 9)[None]
    quantiles = lambda q: stats.norm.ppf(levels, q.mean, np.exp(0.5 * q.log_variance))
    expected = np.mean([quantiles(select(experts, m)) for m in range(3)], axis=0)
    np.testing.assert_allclose(quantiles(barycentre_of_experts(experts)), expected, rtol=1e-12)


@pytest.mark.parametrize("dims", [1, 2])
def test_hellinger_has_the_moments_of_the_squared_sum_of_square_roots(dims, random_gaussian, x64):
    """Moments by quadrature. In two dimensions the weights of the pairs depend on both."""
    experts = random_gaussian(61, 3, 4, dims)
    actual, line = hellinger_of_experts(experts), np.linspace(-40.0, 40.0, 2001)
    z = np.stack(np.meshgrid(*[line] * dims, indexing="ij"), axis=-1).reshape(-1, dims)
    for b in range(4):
        scales = np.exp(0.5 * experts.log_variance[:, b])
        roots = [np.sqrt(stats.norm.pdf(z, experts.mean[m, b], scales[m]).prod(axis=1)) for m in range(3)]
        density = np.square(np.sum(roots, axis=0))[:, None] / np.sum(np.square(np.sum(roots, axis=0)))
        mean = np.sum(density * z, axis=0)
        np.testing.assert_allclose(actual.mean[b], mean, rtol=1e-8)
        variance = np.sum(density * np.square(z - mean), axis=0)
        np.testing.assert_allclose(np.exp(actual.log_variance[b]), variance, rtol=1e-8)


@pytest.mark.parametrize("merger", [average_of_experts, barycentre_of_experts, hellinger_of_experts])
def test_a_merger_of_equal_experts_is_that_expert(merger, random_gaussian, precision):
    expert = random_gaussian(62, 1, 4, 2)
    equal = jax.tree.map(lambda leaf: jnp.repeat(leaf, 3, axis=0), expert)
    check_gaussian(precision, merger(equal), select(expert, 0))


def test_hellinger_of_far_experts_has_the_moments_of_their_mixture(x64):
    mean, variance = np.array([[-50.0], [0.0], [70.0]]), np.array([[1.0], [4.0], [0.25]])
    actual = hellinger_of_experts(DiagonalGaussian(jnp.asarray(mean), jnp.log(variance)))
    expected = np.mean(variance + mean**2) - np.mean(mean) ** 2
    np.testing.assert_allclose(actual.mean, [np.mean(mean)], rtol=1e-12)
    np.testing.assert_allclose(np.exp(actual.log_variance), [expected], rtol=1e-12)


@pytest.mark.parametrize("name", MERGERS)
def test_a_masked_merger_is_that_of_the_smaller_model(name, random_gaussian, precision):
    experts = random_gaussian(52, 3, 6, 2)
    actual = MERGERS[name](experts, PRESENT)
    for b in range(5):
        expected = MERGERS[name](select(experts, (PRESENT[:, b], b)))
        check_gaussian(precision, select(actual, b), expected)
    assert not np.any(actual.mean[5]) and not np.any(actual.log_variance[5])


@pytest.mark.parametrize("name", sorted(set(MERGERS) - {"product_with_prior"}))
def test_a_merger_of_one_expert_is_that_expert(name, random_gaussian, precision):
    merger, experts = MERGERS[name], random_gaussian(53, 1, 4, 2)
    check_gaussian(precision, merger(experts), select(experts, 0))
    extreme = DiagonalGaussian(experts.mean[..., 0], jnp.array([[-30.0, -10.0, 10.0, 30.0]]))
    check_gaussian(precision, merger(extreme), select(extreme, 0))


@pytest.mark.parametrize("name", MERGERS)
def test_mergers_ignore_the_order_of_modalities(name, random_gaussian, precision):
    experts, order = random_gaussian(54, 3, 6, 2), np.array([2, 0, 1])
    permuted = MERGERS[name](select(experts, order), PRESENT[order])
    check_gaussian(precision, permuted, MERGERS[name](experts, PRESENT))


def test_mixture_of_experts_weighs_the_observed_equally(random_gaussian, x64):
    experts = random_gaussian(55, 3, 6, 2)
    components, log_weights, _ = mixture_of_experts(experts, PRESENT)
    assert components.mean.shape == (3, 1, 6, 2) and log_weights.shape == (3, 1, 6)
    count = np.maximum(PRESENT.sum(0), 1)
    expected = np.where(PRESENT | ~PRESENT.any(0), 1.0 / np.where(PRESENT.any(0), count, 3), 0.0)
    np.testing.assert_allclose(np.exp(log_weights[:, 0]), expected, rtol=1e-12)
    for actual, leaf in zip(components, experts):
        np.testing.assert_array_equal(actual[:, 0], np.where(PRESENT[..., None], leaf, 0.0))
    everything = mixture_of_experts(experts)
    np.testing.assert_array_equal(everything.components.mean[:, 0], experts.mean)
    np.testing.assert_allclose(everything.log_weights, np.log(1 / 3), rtol=1e-12)


def test_subsets_come_by_size_and_then_lexicographically(oracles):
    expected = [list(np.flatnonzero(row)) for row in subsets(3)]
    assert expected == oracles["mopoe_subsets"]["subsets"]
    assert [list(np.flatnonzero(row)) for row in subsets(4)][4:7] == [[0, 1], [0, 2], [0, 3]]
    assert subsets(12).shape == (4095, 12) and len(np.unique(subsets(12), axis=0)) == 4095


def test_more_than_twelve_modalities_are_refused():
    with pytest.raises(ValueError, match="13 modalities.*at most 12"):
        subsets(13)


def test_subset_posteriors_meet_the_oracle(oracles, precision):
    oracle = oracles["mopoe_subsets"]
    expected = [np.asarray([row[name] for row in oracle["posteriors"]]) for name in ("mean", "log_variance")]
    check_gaussian(precision, subset_posteriors(experts_of(oracle)), expected)


SUBSETS = [(subset_posteriors, product_of_experts), (subset_barycentres, barycentre_of_experts)]


@pytest.mark.parametrize(("of_subsets", "merger"), SUBSETS)
def test_every_subset_is_merged_from_its_observed_members(of_subsets, merger, random_gaussian, precision):
    experts = random_gaussian(56, 3, 6, 2)
    actual = of_subsets(experts, PRESENT)
    for row, members in enumerate(subsets(3)):
        expected = merger(experts, PRESENT & members[:, None])
        check_gaussian(precision, select(actual, row), expected)


def test_a_subset_counts_where_all_its_members_are_observed():
    mask = subset_mask(jnp.asarray(PRESENT))
    for (row, members), b in itertools.product(enumerate(subsets(3)), range(6)):
        assert mask[row, b] == set(np.flatnonzero(members)).issubset(np.flatnonzero(PRESENT[:, b]))
    np.testing.assert_array_equal(subset_mask(jnp.array([True, False])), [True, False, False])


MIXTURES = [(mixture_of_products, subset_posteriors), (mixture_of_barycentres, subset_barycentres)]


@pytest.mark.parametrize(("mixture", "of_subsets"), MIXTURES)
def test_mixtures_weigh_the_observed_subsets_equally(mixture, of_subsets, random_gaussian, x64):
    experts = random_gaussian(57, 3, 6, 2)
    components, log_weights, _ = mixture(experts, PRESENT)
    assert components.mean.shape == (7, 1, 6, 2) and log_weights.shape == (7, 1, 6)
    mask, expected = subset_mask(jnp.asarray(PRESENT)), of_subsets(experts, PRESENT)
    for actual, leaf in zip(components, expected):
        np.testing.assert_array_equal(actual[:, 0], np.where(mask[..., None], leaf, 0.0))
    count = 2.0 ** PRESENT.sum(0) - 1.0
    weights = np.where(mask, 1.0 / np.maximum(count, 1.0), 0.0)
    weights[:, count == 0] = 1 / 7
    np.testing.assert_allclose(np.exp(log_weights[:, 0]), weights, rtol=1e-12)


def test_the_prior_expert_joins_the_product_of_all_that_was_observed_alone(random_gaussian, x64):
    experts = random_gaussian(4, *PRESENT.shape, 2)
    plain, *_ = mixture_of_products(experts, PRESENT)
    joined, *_ = mixture_of_products(experts, PRESENT, prior_expert=True)
    whole = product_of_experts(experts, PRESENT, prior_expert=True)
    for example, observed in enumerate(np.asarray(PRESENT).T):
        changed = np.flatnonzero((plain.mean[:, 0, example] != joined.mean[:, 0, example]).any(axis=-1))
        assert len(changed) == observed.any()
        for row in changed:
            np.testing.assert_array_equal(subsets(len(observed))[row], observed)
            for leaf, expected in zip(joined, whole):
                np.testing.assert_allclose(leaf[row, 0, example], expected[example], rtol=1e-12)


@pytest.mark.parametrize("mixture", [mixture_of_products, mixture_of_barycentres])
def test_a_mixture_of_one_modality_is_its_posterior(mixture, random_gaussian, precision):
    experts = random_gaussian(58, 1, 4, 2)
    components, log_weights, _ = mixture(experts)
    check_gaussian(precision, select(components, (0, 0)), select(experts, 0))
    np.testing.assert_array_equal(log_weights, np.zeros((1, 1, 4)))


def test_gradients_are_finite_differences(random_gaussian, x64):
    experts = random_gaussian(59, 3, 6, 2)

    def everything(experts):
        merged = [merger(experts, PRESENT) for merger in MERGERS.values()]
        of_subsets = subset_posteriors(experts, PRESENT), subset_barycentres(experts, PRESENT)
        return merged, of_subsets, joint_mixture(experts, PRESENT).components

    check_grads(jax.jit(everything), (experts,), order=1, modes=("rev",))
