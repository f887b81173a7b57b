"""Fully connected networks as wide as their input."""

import math

from torch import nn
from torch.nn import functional


def make(modality, latent_dim):
    """The pair (encoder, decoder) of a modality."""
    return Encoder(math.prod(modality.shape), latent_dim), Decoder(modality.shape, latent_dim)


class Encoder(nn.Module):
    def __init__(self, size, latent_dim):
        super().__init__()
        self.Dense_0 = nn.Linear(size, size)
        self.Dense_1 = nn.Linear(size, size)
        self.Dense_2 = nn.Linear(size, latent_dim)
        self.Dense_3 = nn.Linear(latent_dim, 2 * latent_dim)

    def forward(self, x):
        x = x.flatten(1)
        for layer in (self.Dense_0, self.Dense_1, self.Dense_2):
            x = functional.leaky_relu(layer(x), 0.01)
        return self.Dense_3(x).chunk(2, dim=1)


class Decoder(nn.Module):
    def __init__(self, shape, latent_dim):
        super().__init__()
        self.shape, size = shape, math.prod(shape)
        self.Dense_0 = nn.Linear(latent_dim, size)
        self.Dense_1 = nn.Linear(size, size)
        self.Dense_2 = nn.Linear(size, size)

    def forward(self, z):
        for layer in (self.Dense_0, self.Dense_1):
            z = functional.leaky_relu(layer(z), 0.01)
        return self.Dense_2(z).unflatten(1, self.shape)
