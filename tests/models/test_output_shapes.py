"""A network or a method of one's own that gives another shape than it should is named, before anything broadcasts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mmvm_jax.models.model import Group, Model
from mmvm_jax.types import DiagonalGaussian, Modality

MODALITIES = (Modality("height", (3,), "vector", "normal"),)


class Encoder(nn.Module):
    means: int = 2
    variances: int = 2

    @nn.compact
    def __call__(self, x):
        return DiagonalGaussian(nn.Dense(self.means)(x), nn.Dense(self.variances)(x))


def bound(encoder, decoder):
    model = Model(MODALITIES, 2, (Group((0,), encoder, decoder),))
    return model.bind(model.init(jax.random.key(0)))


def test_what_fits_is_accepted():
    functions = bound(Encoder(), nn.Dense(3))
    assert functions.encode({"height": jnp.ones((5, 3))}).mean.shape == (1, 5, 2)
    assert functions.decode(jnp.ones((1, 4, 5, 2)))["height"].shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Encoder(means=4, variances=4), r"mean of the encoder of 'height' has shape \[1, 5, 4\]; allowed: \[1, 5, 2\]"),
        (Encoder(variances=1), r"log_variance of the encoder of 'height' has shape \[1, 5, 1\]; allowed: \[1, 5, 2\]"),
    ],
)
def test_an_encoder(encoder, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        bound(encoder, nn.Dense(3)).encode({"height": jnp.ones((5, 3))})


def test_a_decoder():
    with pytest.raises(
        ValueError, match=r"^output of the decoder of .height. has shape \[20, 1\]; allowed: \[20, 3\]$"
    ):
        bound(Encoder(), nn.Dense(1)).decode(jnp.ones((1, 4, 5, 2)))
