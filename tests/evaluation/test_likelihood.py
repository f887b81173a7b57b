"""The importance-weighted bound against log-likelihoods that are known: of a linear Gaussian model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from mmvm_jax.config import base
from mmvm_jax.data.dataset import complete_split
from mmvm_jax.evaluation.likelihood import likelihood
from mmvm_jax.models.trained import Trained
from mmvm_jax.objectives.joint import AGGREGATIONS
from mmvm_jax.objectives.method import make_method
from mmvm_jax.types import DiagonalGaussian, Modality

NAMES, SIZES, LATENT_DIM, COUNT = ("a", "b"), (3, 2), 2, 40
SCALE = 0.8
WEIGHTS = (1.0, 5.0)  # of the loss, which no number here may show
_generator = np.random.default_rng(0)
MATRICES = [_generator.normal(size=(LATENT_DIM, size)).astype(np.float32) for size in SIZES]


class Linear:
    """x_m = A_m' z + noise, z ~ N(0, I); posteriors with the exact means and, widened, the exact variances."""

    names = NAMES
    identifiers = jnp.array([3, 5], jnp.uint32)
    method_params = {"mean": jnp.array([[0.3], [-0.2]]), "log_variance": jnp.array([[0.2], [0.4]])}  # of MMVAE+
    modalities = tuple(
        Modality(name, (size,), "vector", "normal", weight=w) for name, size, w in zip(NAMES, SIZES, WEIGHTS)
    )

    def prepare(self, batch):
        return batch

    def bind(self, params):
        return self

    def encode(self, inputs):
        rows = []
        for name, matrix in zip(NAMES, MATRICES):
            covariance = np.linalg.inv(np.eye(LATENT_DIM) + matrix @ matrix.T / SCALE**2)
            mean = inputs[name] @ jnp.asarray(matrix.T @ covariance / SCALE**2, jnp.float32)
            spread = jnp.broadcast_to(jnp.log(2.0 * jnp.diag(jnp.asarray(covariance, jnp.float32)))[None], mean.shape)
            rows.append(DiagonalGaussian(mean, spread))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    def log_likelihood(self, batch, z):
        rows = []
        for name, matrix, weight, row, present in zip(NAMES, MATRICES, WEIGHTS, z, batch.present):
            squared = jnp.sum(jnp.square((batch.inputs[name] - row @ matrix) / SCALE), axis=-1)
            value = -0.5 * squared - matrix.shape[1] * (np.log(SCALE) + 0.5 * np.log(2 * np.pi))
            rows.append(jnp.where(present, weight * value, 0.0))
        return jnp.stack(rows)


def _split():
    generator = np.random.default_rng(1)
    z = generator.normal(size=(COUNT, LATENT_DIM))
    inputs = {
        name: (z @ matrix + SCALE * generator.normal(size=(COUNT, size))).astype(np.float32)
        for name, matrix, size in zip(NAMES, MATRICES, SIZES)
    }
    return complete_split(inputs, np.zeros(COUNT, np.int32))


def _exact(matrix, x):
    return multivariate_normal(np.zeros(x.shape[1]), matrix.T @ matrix + SCALE**2 * np.eye(x.shape[1])).logpdf(x)


def _method(name, **options):
    config = base().method
    config.name = name
    config[name].update(options)
    return make_method(config)


METHODS = [("joint", {"aggregation": name}) for name in AGGREGATIONS]
METHODS += [(name, {}) for name in ("mvae", "mmvae", "mmjsd", "mvtcae", "crmvae")]


@pytest.mark.parametrize("name, options", METHODS)
def test_many_samples_reach_the_exact_log_likelihoods(name, options):
    split = _split()
    trained = Trained(Linear(), _method(name, **options), {})
    values = likelihood(trained, split, 16, 3000, 0)
    both = np.concatenate([split.inputs[name] for name in NAMES], axis=1)
    expected = {
        "likelihood/joint": _exact(np.concatenate(MATRICES, axis=1), both).mean(),
        # With samples from the other's posterior these too are bounds on the modality's own log-likelihood.
        "likelihood/conditional/a_to_b": _exact(MATRICES[1], split.inputs["b"]).mean(),
        "likelihood/conditional/b_to_a": _exact(MATRICES[0], split.inputs["a"]).mean(),
    }
    assert values.keys() == expected.keys()
    for quantity, value in expected.items():
        assert values[quantity] == pytest.approx(value, abs=0.03), quantity


def test_one_sample_is_the_evidence_lower_bound_of_the_sources_posterior():
    """E_q log p(x_a | z) - KL(q(z | x_b) || N(0, I)) in closed form; standard error of the draws: 0.04."""
    one, matrix = _split(), MATRICES[0]
    many = complete_split({name: np.repeat(x, 100, axis=0) for name, x in one.inputs.items()}, np.zeros(100 * COUNT))
    q = jax.device_get(jax.tree.map(lambda leaf: leaf[1], Linear().encode(one.inputs)))
    variance = np.exp(q.log_variance)
    squared = np.square(one.inputs["a"] - q.mean @ matrix).sum(axis=1) + variance @ np.square(matrix).sum(axis=1)
    log_likelihood = -0.5 * squared / SCALE**2 - SIZES[0] * (np.log(SCALE) + 0.5 * np.log(2 * np.pi))
    divergence = 0.5 * (np.square(q.mean) + variance - q.log_variance - 1.0).sum(axis=1)
    values = likelihood(Trained(Linear(), _method("joint"), {}), many, 400, 1, 0)
    assert values["likelihood/conditional/b_to_a"] == pytest.approx(np.mean(log_likelihood - divergence), abs=0.16)


def test_few_samples_stay_below_and_more_come_closer():
    split, trained = _split(), Trained(Linear(), _method("mmvae"), {})
    both = np.concatenate([split.inputs[name] for name in NAMES], axis=1)
    exact = _exact(np.concatenate(MATRICES, axis=1), both).mean()
    bounds = [likelihood(trained, split, 16, samples, 0)["likelihood/joint"] for samples in (1, 30)]
    assert bounds[0] < bounds[1] < exact + 0.05


def test_only_examples_that_have_the_modalities_count():
    split, trained = _split(), Trained(Linear(), _method("joint"), {})
    split.present[1, 8:] = False
    split.inputs["b"][8:] = 1e3
    values = likelihood(trained, split, 16, 2000, 0)
    assert values["likelihood/conditional/a_to_b"] == pytest.approx(
        _exact(MATRICES[1], split.inputs["b"][:8]).mean(), abs=0.1
    )
    split.present[1] = False
    assert likelihood(trained, split, 16, 2, 0) == {}


def _private(name):
    """The rows of a modality's matrix: what its private latent and what the shared one do."""
    return MATRICES[NAMES.index(name)][:1], MATRICES[NAMES.index(name)][1:]


def _exact_of_both(split):
    """log p(x_a, x_b), where only the second latent dimension is shared."""
    (own_a, shared_a), (own_b, shared_b) = _private("a"), _private("b")
    matrix = np.block([[own_a, np.zeros_like(own_b)], [np.zeros_like(own_a), own_b], [shared_a, shared_b]])
    return _exact(matrix, np.concatenate([split.inputs[name] for name in NAMES], axis=1))


@pytest.mark.parametrize("absent", ["prior", "auxiliary"])
def test_private_latents_reach_the_exact_log_likelihoods(absent):
    split = _split()
    trained = Trained(Linear(), _method("mmvae_plus", private_dim=1, absent_private=absent), {})
    values = likelihood(trained, split, 16, 3000, 0)
    assert values["likelihood/joint"] == pytest.approx(_exact_of_both(split).mean(), abs=0.03)
    for source, target in (("a", "b"), ("b", "a")):
        expected = _exact(MATRICES[NAMES.index(target)], split.inputs[target]).mean()
        assert values[f"likelihood/conditional/{source}_to_{target}"] == pytest.approx(expected, abs=0.03)


def test_laplace_latents_reach_the_quadrature():
    """Scale 1 of priors and, with one dimension a part, of posteriors; grids of the private inside the shared."""
    split, grid = _split(), np.linspace(-14.0, 14.0, 561)
    log_laplace = -np.abs(grid) - np.log(2.0) + np.log(grid[1] - grid[0])
    log_given_u = {}
    for name in NAMES:
        own, shared = _private(name)
        log_given_u[name] = np.empty((COUNT, grid.size))
        for place, u in enumerate(grid):
            mean = grid[:, None] * own + u * shared
            squared = np.square((split.inputs[name][:, None] - mean[None]) / SCALE).sum(axis=-1)
            constant = own.size * (np.log(SCALE) + 0.5 * np.log(2 * np.pi))
            log_given_u[name][:, place] = logsumexp(-0.5 * squared - constant + log_laplace[None], axis=1)
    over_u = lambda value: logsumexp(value + log_laplace[None], axis=1).mean()
    method = _method("mmvae_plus", private_dim=1, latent_distribution="laplace")
    values = likelihood(Trained(Linear(), method, {}), split, 16, 6000, 0)
    assert values["likelihood/joint"] == pytest.approx(over_u(log_given_u["a"] + log_given_u["b"]), abs=0.05)
    assert values["likelihood/conditional/a_to_b"] == pytest.approx(over_u(log_given_u["b"]), abs=0.05)


def test_methods_without_a_prior_of_what_decoders_read_are_left_out_and_so_are_no_samples():
    for name in ("mmvm", "meme", "independent"):
        assert likelihood(Trained(Linear(), _method(name), {}), _split(), 16, 10, 0) == {}
    assert likelihood(Trained(Linear(), _method("joint"), {}), _split(), 16, 0, 0) == {}
