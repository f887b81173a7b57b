"""One network per kind of data: ``small_cnn`` for images, this module for tokens, ``mlp`` for all others."""

import flax.linen as nn

from mmvm_jax.networks import mlp, small_cnn
from mmvm_jax.types import Array, DiagonalGaussian

KINDS = (*mlp.KINDS, "tokens")
READS_MISSING_ENTRIES = True
_EMBEDDING = 32


def make(modality, config):
    """Return the encoder and the decoder of a modality, from ``config.network.small_cnn`` or ``.mlp``."""
    if modality.kind == "image":
        return small_cnn.make(modality, config)
    if modality.kind != "tokens":
        return mlp.make(modality, config)
    hidden_dims = tuple(config.mlp.hidden_dims)
    encoder = Encoder(config.latent_dim, modality.vocabulary_size, hidden_dims)
    return encoder, Decoder(modality.shape[0], modality.vocabulary_size, hidden_dims[::-1])


class Encoder(nn.Module):
    """Encode a token sequence, with separate weights per position: ids [N, T] -> DiagonalGaussian [N, D]."""

    latent_dim: int
    vocabulary_size: int
    hidden_dims: tuple[int, ...] = (400, 400)

    @nn.compact
    def __call__(self, tokens: Array) -> DiagonalGaussian:
        x = nn.Embed(self.vocabulary_size, _EMBEDDING, embedding_init=nn.initializers.normal(1.0))(tokens)
        return mlp.Encoder(self.latent_dim, self.hidden_dims)(x)


class Decoder(nn.Module):
    """Decode a token sequence: [N, D] -> logits [N, T, V]. ``hidden_dims`` are in the order of use."""

    length: int
    vocabulary_size: int
    hidden_dims: tuple[int, ...] = (400, 400)

    @nn.compact
    def __call__(self, z: Array) -> Array:
        x = mlp.Decoder((self.length, _EMBEDDING), self.hidden_dims)(z)
        return nn.Dense(self.vocabulary_size)(x)
