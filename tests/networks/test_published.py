"""The networks of the papers: as many parameters as published, the right shapes, and clear refusals."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from mmvm_jax import networks
from mmvm_jax.errors import UserError
from mmvm_jax.types import Modality

TEXT = dict(kind="tokens", likelihood="categorical")


def _image(*shape):
    return Modality("image", shape, "image", "laplace")


def _counts(neurons):
    return Modality("rat", (neurons, 10), "counts", "normal")


# Network, latent dimension, modality, and the parameters of the published encoder and decoder: counted by
# instantiating the released PyTorch code.
PUBLISHED = [
    ("polymnist_resnet", 512, _image(28, 28, 3), 13_516_224, 7_104_963),
    ("polymnist_resnet", 256, _image(28, 28, 3), 7_093_184, 3_893_699),
    ("celeba", 128, _image(64, 64, 3), 5_454_656, 5_512_579),
    ("celeba", 128, Modality("text", (256,), vocabulary_size=41, **TEXT), 3_381_824, 3_439_721),
    ("cub", 256, _image(64, 64, 3), 6_951_360, 4_853_699),
    ("cub", 256, Modality("caption", (32,), vocabulary_size=1868, **TEXT), 1_584_064, 1_061_644),
    ("mimic_cxr", 256, _image(224, 224, 1), 8_916_864, 5_823_617),
    ("mnist_svhn", 64, _image(28, 28, 1), 730_240, 698_128),
    ("mnist_svhn", 64, _image(32, 32, 3), 1_347_488 - 2 * 32_832, 296_675),  # without two heads nothing reads
    ("hippocampal", 2, _counts(92), 1_696_494, 1_697_400),
    ("hippocampal", 2, _counts(79), 1_251_374, 1_252_150),
    ("hippocampal", 2, _counts(104), 2_167_374, 2_168_400),
    ("hippocampal", 2, _counts(49), 482_174, 482_650),
    ("hippocampal", 2, _counts(46), 425_054, 425_500),
]
IDS = [f"{name}-{'x'.join(map(str, modality.shape))}-{d}" for name, d, modality, *_ in PUBLISHED]


def _config(name, latent_dim=4):
    return ml_collections.ConfigDict({"name": name, "latent_dim": latent_dim})


def _inputs(modality, count, seed=0):
    if modality.kind == "tokens":
        return jax.random.randint(jax.random.key(seed), (count, *modality.shape), 0, modality.vocabulary_size)
    return jax.random.uniform(jax.random.key(seed), (count, *modality.shape))


@pytest.mark.parametrize("name, latent_dim, modality, in_encoder, in_decoder", PUBLISHED, ids=IDS)
def test_as_many_parameters_as_published(name, latent_dim, modality, in_encoder, in_decoder):
    encoder, decoder = networks.make(modality, _config(name, latent_dim))
    key, x = jax.random.key(0), _inputs(modality, 3)
    posterior, variables = jax.eval_shape(encoder.init_with_output, key, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == in_encoder
    assert posterior.mean.shape == posterior.log_variance.shape == (3, latent_dim)
    output, variables = jax.eval_shape(decoder.init_with_output, key, jnp.zeros((3, latent_dim)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == in_decoder
    events = (*modality.shape, modality.vocabulary_size) if modality.kind == "tokens" else modality.shape
    assert output.shape == (3, *events)


# One of each that a small machine compiles in seconds.
SMALL = {IDS[row]: PUBLISHED[row][0:3:2] for row in (0, 2, 3, 4, 5, 7, 8, 13)}


@pytest.mark.parametrize("name, modality", SMALL.values(), ids=SMALL)
def test_every_input_and_latent_matters(name, modality):
    """Different inputs have different posteriors, different latents different outputs; nothing vanishes."""
    encoder, decoder = networks.make(modality, _config(name))

    @jax.jit
    def run(key, x, z):
        posterior, _ = encoder.init_with_output(key, x)
        return posterior, decoder.init_with_output(key, z)[0]

    z = jax.random.normal(jax.random.key(1), (2, 4))
    posterior, output = run(jax.random.key(2), _inputs(modality, 2), z)
    for leaf in (*posterior, output):
        assert np.isfinite(leaf).all()
        spread = np.std(leaf - leaf[:1], axis=tuple(range(1, leaf.ndim)))[1]
        assert 1e-3 < spread < 1e3


def test_residual_blocks_add_what_they_learn_to_the_shortcut():
    """The PolyMNIST block is its input plus a tenth of two convolutions; with these 0, its input."""
    block = networks.polymnist_resnet.ResidualBlock(3)
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    variables = block.init(jax.random.key(1), x)
    whole = block.apply(variables, x) - x
    last = variables["params"]["Conv_1"]
    variables["params"]["Conv_1"] = jax.tree.map(lambda leaf: 3.0 * leaf, last)
    np.testing.assert_allclose(block.apply(variables, x) - x, 3.0 * whole, rtol=1e-4, atol=1e-5)
    variables["params"]["Conv_1"] = jax.tree.map(jnp.zeros_like, last)
    np.testing.assert_array_equal(block.apply(variables, x), x)


@pytest.mark.parametrize(
    "name, modality, message",
    [
        (
            "celeba",
            _image(28, 28, 3),
            "modality 'image' has shape 28 x 28 x 3; allowed.*'image': 64 x 64 x 3",
        ),
        ("celeba", Modality("t", (32,), vocabulary_size=9, **TEXT), "'t' has shape 32; allowed.*'tokens': 256"),
        ("cub", Modality("t", (256,), vocabulary_size=9, **TEXT), "'t' has shape 256; allowed.*'tokens': 32"),
        ("cub", _image(32, 32, 3), "allowed for the kind 'image': 64 x 64 x 3"),
        ("mimic_cxr", _image(128, 128, 1), "allowed for the kind 'image': 224 x 224 x 1"),
        ("mnist_svhn", _image(32, 32, 1), "28 x 28 x 1 or 32 x 32 x 3"),
        ("polymnist_resnet", _image(30, 28, 3), "multiples of 4"),
        ("polymnist_resnet", _counts(5), "of kind 'counts'; networks that fit: by_kind, hippocampal, mlp"),
        ("hippocampal", _image(28, 28, 3), "does not fit modality 'image'"),
    ],
)
def test_a_modality_that_does_not_fit_is_refused(name, modality, message):
    with pytest.raises(UserError, match=message):
        networks.make(modality, _config(name))
