"""Three strided convolutions and their mirror image."""

from torch import nn

from benchmarks.peers.weights import LinearFromImage, LinearToImage


def make(modality, latent_dim):
    """The pair (encoder, decoder) of 28 x 28 images."""
    return Encoder(modality.shape[-1], latent_dim), Decoder(modality.shape[-1], latent_dim)


class Encoder(nn.Module):
    def __init__(self, channels, latent_dim):
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, 32, 3, stride=2, padding=1)
        self.Conv_1 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.Conv_2 = nn.Conv2d(64, 128, 3, stride=2, padding=1)
        self.Dense_0 = LinearFromImage(128, (4, 4), 2 * latent_dim)

    def forward(self, x):
        for convolution in (self.Conv_0, self.Conv_1, self.Conv_2):
            x = convolution(x).relu()
        return self.Dense_0(x.flatten(1)).chunk(2, dim=1)


class Decoder(nn.Module):
    def __init__(self, channels, latent_dim):
        super().__init__()
        self.Dense_0 = LinearToImage(latent_dim, 128, (4, 4))
        self.ConvTranspose_0 = nn.ConvTranspose2d(128, 64, 3, stride=2, padding=1)
        self.ConvTranspose_1 = nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1)
        self.ConvTranspose_2 = nn.ConvTranspose2d(32, channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, z):
        x = self.Dense_0(z).relu().unflatten(1, (128, 4, 4))
        for transpose in (self.ConvTranspose_0, self.ConvTranspose_1):
            x = transpose(x).relu()
        return self.ConvTranspose_2(x)
