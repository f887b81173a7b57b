import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from mmvm_jax import networks
from mmvm_jax.errors import UserError
from mmvm_jax.networks import mlp, small_cnn
from mmvm_jax.types import Modality

ANY_IMAGE = ("mlp", "small_cnn")  # networks for images of any shape

CONFIG = ml_collections.ConfigDict(
    {
        "name": "small_cnn",
        "latent_dim": 6,
        "mlp": {"hidden_dims": (40, 30)},
        "small_cnn": {"channels": (4, 8, 16)},
    }
)


def _renamed(name):
    config = ml_collections.ConfigDict(CONFIG)
    config.name = name
    return config


def _count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def _image(shape, name="a"):
    return Modality(name, shape, "image", "laplace")


@pytest.mark.parametrize("name", ANY_IMAGE)
@pytest.mark.parametrize("shape", [(28, 28, 3), (32, 32, 1), (21, 33, 2)])
def test_shapes_of_a_pair(name, shape):
    encoder, decoder = networks.make(_image(shape), _renamed(name))
    posterior, _ = encoder.init_with_output(jax.random.key(0), jnp.ones((3, *shape)))
    assert posterior.mean.shape == posterior.log_variance.shape == (3, 6)
    output, _ = decoder.init_with_output(jax.random.key(0), posterior.mean)
    assert output.shape == (3, *shape)


def test_parameter_counts():
    x, z = jnp.ones((1, 28, 28, 3)), jnp.ones((1, 64))
    key = jax.random.key(0)
    assert _count(small_cnn.Encoder(64).init(key, x)) == 896 + 18_496 + 73_856 + 262_272
    assert _count(small_cnn.Decoder((28, 28, 3)).init(key, z)) == 133_120 + 73_792 + 18_464 + 867
    assert _count(mlp.Encoder(64).init(key, x)) == 941_200 + 160_400 + 51_328
    assert _count(mlp.Decoder((28, 28, 3)).init(key, z)) == 26_000 + 160_400 + 943_152


@pytest.mark.parametrize("name", ANY_IMAGE)
def test_activations_keep_their_scale(name):
    """Neither vanishing nor exploding at the start: outputs within a factor of four of the inputs."""
    encoder, decoder = networks.make(_image((28, 28, 3)), _renamed(name))
    x = jax.random.normal(jax.random.key(0), (64, 28, 28, 3))
    posterior, _ = encoder.init_with_output(jax.random.key(1), x)
    assert 0.25 < posterior.mean.std() < 4
    output, _ = decoder.init_with_output(jax.random.key(2), jax.random.normal(jax.random.key(3), (64, 6)))
    assert 0.25 < output.std() < 4


def test_equal_architectures_are_equal():
    """What groups modalities into banks: the name of a modality is not part of its networks."""
    a, b = (networks.make(_image((28, 28, 3), name), CONFIG) for name in "ab")
    assert a == b and hash(a) == hash(b)
    other = networks.make(_image((28, 28, 1)), CONFIG)
    assert other[0] == a[0] and other[1] != a[1]


def test_mlp_reads_vectors():
    encoder, decoder = networks.make(Modality("v", (7,), "vector", "normal"), _renamed("mlp"))
    assert encoder.hidden_dims == (40, 30) and decoder.hidden_dims == (30, 40)
    posterior, _ = encoder.init_with_output(jax.random.key(0), jnp.ones((3, 7)))
    output, _ = decoder.init_with_output(jax.random.key(0), posterior.mean)
    assert output.shape == (3, 7)


@pytest.mark.parametrize("network", ["mlp", "by_kind"])
@pytest.mark.parametrize(("likelihood", "typical"), [("normal", 1.0), ("poisson", 40.0)])
def test_mlp_reads_counts_compressed(network, likelihood, typical):
    counts = jnp.array([[0.0, 1.0, 5.0], [1e6, 2e9, 30.0], [-2.0, 0.5, 1e-3]])  # a method may learn what is no count
    modalities = [Modality("v", (3,), kind, likelihood, scale=40.0) for kind in ("counts", "vector")]
    pair = [networks.make(modality, _renamed(network))[0] for modality in modalities]
    variables = pair[0].init(jax.random.key(0), counts)
    compressed = np.arcsinh(np.float64(counts) / typical)
    read, expected = pair[0].apply(variables, counts), pair[1].apply(variables, compressed)
    np.testing.assert_allclose(read.mean, expected.mean, rtol=1e-4, atol=1e-5)


def test_unsuitable_kind_names_what_fits():
    with pytest.raises(UserError, match="'small_cnn'.*'v'.*'vector'.*fit: by_kind, hippocampal, mlp"):
        networks.make(Modality("v", (7,), "vector", "normal"), CONFIG)


@pytest.mark.parametrize(("network", "shape"), [("cub", (64, 64, 3)), ("mnist_svhn", (28, 28, 1))])
def test_a_sigmoid_is_not_followed_by_another(network, shape):
    networks.make(Modality("x", shape, "image", "laplace"), _renamed(network))
    message = f"'{network}': modality 'x' has the likelihood 'bernoulli'; allowed: laplace or normal"
    with pytest.raises(UserError, match=message):
        networks.make(Modality("x", shape, "image", "bernoulli"), _renamed(network))


def test_unknown_network_lists_the_known():
    with pytest.raises(UserError, match="'resnett'.*mlp, mnist_svhn, polymnist_resnet, small_cnn"):
        networks.make(_image((28, 28, 3)), _renamed("resnett"))


def test_decoder_reaches_every_pixel():
    decoder = small_cnn.Decoder((21, 33, 2), (4, 8, 16))
    z = jax.random.normal(jax.random.key(0), (20, 6))
    variables = decoder.init(jax.random.key(1), z)
    image = decoder.apply(variables, z)
    assert np.any(np.asarray(image) != 0, axis=0).all()
