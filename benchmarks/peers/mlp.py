"""Two hidden layers of 400 units, for vectors."""

import math

from torch import nn


def make(modality, latent_dim):
    """The pair (encoder, decoder) of a modality."""
    return Encoder(math.prod(modality.shape), latent_dim), Decoder(modality.shape, latent_dim)


class Encoder(nn.Module):
    def __init__(self, size, latent_dim):
        super().__init__()
        self.Dense_0 = nn.Linear(size, 400)
        self.Dense_1 = nn.Linear(400, 400)
        self.Dense_2 = nn.Linear(400, 2 * latent_dim)

    def forward(self, x):
        x = x.flatten(1)
        for layer in (self.Dense_0, self.Dense_1):
            x = layer(x).relu()
        return self.Dense_2(x).chunk(2, dim=1)


class Decoder(nn.Module):
    def __init__(self, shape, latent_dim):
        super().__init__()
        self.shape = shape
        self.Dense_0 = nn.Linear(latent_dim, 400)
        self.Dense_1 = nn.Linear(400, 400)
        self.Dense_2 = nn.Linear(400, math.prod(shape))

    def forward(self, z):
        for layer in (self.Dense_0, self.Dense_1):
            z = layer(z).relu()
        return self.Dense_2(z).unflatten(1, self.shape)
