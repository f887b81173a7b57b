"""What is absent does not matter: not its content, not its networks, not its place among the modalities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_gaussian import (
    CASES,
    hyper_of,
    jit_loss,
    loss_and_gradient,
    make_batch,
    make_case,
    make_params,
    quick_jit,
    with_method_params,
)
from ml_collections import ConfigDict

from mmvm_jax.models.model import make_model
from mmvm_jax.types import Batch, Modality

NAMES = ("alpha", "beta", "gamma")
ALL_PATTERNS = np.array(list(itertools.product([True, False], repeat=3))).T
# Of the first two modalities; the third is absent throughout.
PAIR_PATTERNS = np.array([[1, 1, 0, 1, 1, 0, 1, 0], [1, 0, 1, 1, 0, 1, 1, 0]], bool)
# Those that differ in what they do with a mask.
MASK_CASES = ("independent", "average", "moe", "mopoe", "mvae", "mmvae_dreg_tight", "mmvae_plus_dreg")
MASK_CASES += (
    "mmvae_plus_laplace",
    "mmvae_plus_clusters",
    "mmvm_monte_carlo",
    "mmvm_random_experts",
    "mmvm_per_example_two",
    "mmvm_hard",
    "mmvm_cross",
    "mmvm_cross_product",
)
MASK_CASES += ("meme", "mmjsd", "mvtcae", "crmvae", "hellinger", "barycentre", "mixture_of_barycentres")


@pytest.mark.parametrize("case", MASK_CASES)
def test_absent_modality_might_as_well_not_exist(case, x64):
    # MEME's example with one modality alone reads the pseudo-inputs of all the absent ones.
    pair = PAIR_PATTERNS[:, [0, 0, 3, 3, 6, 6, 7, 7]] if CASES[case][0] == "meme" else PAIR_PATTERNS
    present = np.concatenate([pair, np.zeros_like(pair[:1])])
    start, small_start = make_params(NAMES), make_params(NAMES[:2])
    batch, small_batch = make_batch(start, present), make_batch(small_start, pair)
    params = with_method_params(start, case, batch)
    small_params = with_method_params(small_start, case, small_batch)
    losses, gradient = loss_and_gradient(case, params, batch)
    np.testing.assert_allclose(losses, jit_loss(case, small_params, small_batch), rtol=1e-10)
    assert losses[-1] == 0.0  # nothing observed

    absent = [gradient["encoders"]["gamma"], gradient["decoders"]["gamma"]]
    if CASES[case][0] == "meme":
        absent.append(gradient["method"])  # no pseudo-input is used
    else:
        absent += [leaf[2] for name, leaf in gradient["method"].items() if name not in ("bias", "clusters")]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(absent))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    for name in NAMES[:2]:
        assert np.any(gradient["encoders"][name]["matrix"]) and np.any(gradient["decoders"][name]["matrix"])


@pytest.mark.parametrize("case", MASK_CASES)
def test_order_of_modalities_and_examples_does_not_matter(case, x64):
    params = make_params(NAMES)
    batch = make_batch(params, ALL_PATTERNS, first_index=100)
    params = with_method_params(params, case, batch)
    expected, _ = loss_and_gradient(case, params, batch)

    order, examples = np.array([2, 0, 1]), np.arange(ALL_PATTERNS.shape[1])[::-1]
    turn = lambda path, leaf: leaf if path[0].key in ("bias", "clusters") else leaf[order]
    if CASES[case][0] != "meme":  # whose pseudo-inputs go by name
        params["method"] = jax.tree_util.tree_map_with_path(turn, params["method"])
    inputs = {name: x[examples] for name, x in batch.inputs.items()}
    turned = Batch(inputs, batch.present[order][:, examples], batch.index[examples], batch.labels)
    actual = jit_loss(case, params, turned, names=tuple(NAMES[row] for row in order))
    np.testing.assert_allclose(actual, expected[examples], rtol=1e-10)


MODALITIES = (
    Modality("picture", (4, 4, 1), "image", "laplace", scale=0.75),
    Modality("text", (5,), "vector", "normal"),
    Modality("counts", (5,), "counts", "poisson", weight=0.5),
)
# One case a method, those whose gradients take the longest way.
NETWORK_CASES = (
    "independent",
    "mopoe",
    "mvae",
    "mmvae_dreg_loose",
    "mmvae_plus_laplace",
    "mmvm_hard",
    "mmvm_cross_product",
    "meme",
    "mmjsd",
)
NETWORK_CASES += ("mvtcae", "crmvae", "hellinger", "mixture_of_barycentres")


@pytest.mark.parametrize("case", NETWORK_CASES)
def test_content_of_absent_inputs_changes_no_bit(case):
    network = ConfigDict({"name": "mlp", "latent_dim": 3, "mlp": {"hidden_dims": (6,)}})
    model, (module, options) = make_model(MODALITIES, network), make_case(case)
    present = np.concatenate([PAIR_PATTERNS, np.zeros_like(PAIR_PATTERNS[:1])])[[0, 2, 1]]
    generator, size = np.random.default_rng(0), present.shape[1]
    inputs = {
        "picture": generator.uniform(size=(size, 4, 4, 1)),
        "text": generator.normal(size=(size, 5)),
        "counts": generator.poisson(2.0, (size, 5)),
    }

    def filled_with(value):
        filled = {
            name: jnp.where(row.reshape(-1, *(1,) * (x.ndim - 1)), x, value).astype(jnp.float32)
            for row, (name, x) in zip(present, inputs.items())
        }
        index = jnp.arange(size, dtype=jnp.int32)
        return Batch(filled, jnp.asarray(present), index, jnp.full(size, -1))

    params = model.init(jax.random.key(0))
    prepared = model.prepare(filled_with(0.0))
    params["method"] = module.init(jax.random.key(1), prepared, model.bind(params | {"method": {}}), options)

    @quick_jit
    def values_and_gradient(params, batch):
        def loss(params):
            values = module.loss(
                jax.random.key(2), model.prepare(batch), model.bind(params), hyper_of(case), options
            ).loss
            return jnp.sum(values), values

        gradient, values = jax.grad(loss, has_aux=True)(params)
        return values, gradient

    with_zeros, with_nan = (values_and_gradient(params, filled_with(value)) for value in (0.0, np.nan))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(with_nan))
    jax.tree.map(np.testing.assert_array_equal, with_nan, with_zeros)
