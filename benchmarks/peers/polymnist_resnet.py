"""Residual networks of 64, 128 and 256 channels."""

from torch import nn
from torch.nn import functional

from benchmarks.peers.weights import LinearFromImage, LinearToImage


def make(modality, latent_dim):
    """The pair (encoder, decoder) of images whose sides are multiples of 4."""
    rows, columns, channels = modality.shape
    small = (rows // 4, columns // 4)
    return Encoder(channels, small, latent_dim), Decoder(channels, small, latent_dim)


def _active(x):
    return functional.leaky_relu(x, 0.2)


class ResidualBlock(nn.Module):
    def __init__(self, channels, features):
        super().__init__()
        convolutions = [
            nn.Conv2d(channels, min(channels, features), 3, padding=1),
            nn.Conv2d(min(channels, features), features, 3, padding=1),
        ]
        if channels != features:
            convolutions.insert(0, nn.Conv2d(channels, features, 1, bias=False))
        for i, convolution in enumerate(convolutions):
            self.add_module(f"Conv_{i}", convolution)

    def forward(self, x):
        *shortcut, first, second = self.children()
        shortcut = shortcut[0](x) if shortcut else x
        return shortcut + 0.1 * second(_active(first(_active(x))))


class Encoder(nn.Module):
    def __init__(self, channels, small, latent_dim):
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, 64, 3, padding=1)
        self.ResidualBlock_0 = ResidualBlock(64, 64)
        self.ResidualBlock_1 = ResidualBlock(64, 128)
        self.ResidualBlock_2 = ResidualBlock(128, 256)
        self.Dense_0 = LinearFromImage(256, small, 2 * latent_dim)

    def forward(self, x):
        x = self.ResidualBlock_0(self.Conv_0(x))
        for block in (self.ResidualBlock_1, self.ResidualBlock_2):
            x = block(functional.avg_pool2d(x, 3, stride=2, padding=1))
        return self.Dense_0(x.flatten(1)).chunk(2, dim=1)


class Decoder(nn.Module):
    def __init__(self, channels, small, latent_dim):
        super().__init__()
        self.small = small
        self.Dense_0 = LinearToImage(latent_dim, 256, small)
        self.ResidualBlock_0 = ResidualBlock(256, 128)
        self.ResidualBlock_1 = ResidualBlock(128, 64)
        self.ResidualBlock_2 = ResidualBlock(64, 64)
        self.Conv_0 = nn.Conv2d(64, channels, 3, padding=1)

    def forward(self, z):
        x = self.Dense_0(z).unflatten(1, (256, *self.small))
        for block in (self.ResidualBlock_0, self.ResidualBlock_1):
            x = functional.interpolate(block(x), scale_factor=2)
        return self.Conv_0(_active(self.ResidualBlock_2(x)))
