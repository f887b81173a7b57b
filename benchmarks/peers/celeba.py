"""Residual networks for 64 x 64 images and for 256 characters of text."""

from torch import nn
from torch.nn import functional


def make(modality, latent_dim):
    """The pair (encoder, decoder) of a modality: text for tokens, else image."""
    if modality.kind == "tokens":
        return TextEncoder(modality.vocabulary_size, latent_dim), TextDecoder(modality.vocabulary_size, latent_dim)
    return Encoder(modality.shape[-1], latent_dim), Decoder(modality.shape[-1], latent_dim)


class ResidualBlock(nn.Module):
    """A wide convolution, or its transpose, beside a narrow one and a wide one; for sequences or images."""

    def __init__(self, ndim, channels, features, stride=2, padding=1, up=False):
        super().__init__()
        narrow = nn.Conv2d if ndim == 2 else nn.Conv1d
        wide = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d)}[ndim][up]
        norm, dropout = (nn.BatchNorm2d, nn.Dropout2d) if ndim == 2 else (nn.BatchNorm1d, nn.Dropout)
        make = lambda bias: wide(channels, features, 4, stride=stride, padding=padding, bias=bias)
        shortcut, first, last = make(True), narrow(channels, channels, 1, bias=ndim == 1), make(ndim == 1)
        names = ("ConvTranspose_0", "Conv_0", "ConvTranspose_1") if up else ("Conv_0", "Conv_1", "Conv_2")
        self.path = names
        for name, convolution in zip(names, (shortcut, first, last)):
            self.add_module(name, convolution)
        self.BatchNorm_0 = norm(features)
        self.BatchNorm_1, self.BatchNorm_2 = norm(channels), norm(channels)
        self.dropout_0, self.dropout_1 = dropout(0.5), dropout(0.5)

    def forward(self, x):
        wide, first, last = (getattr(self, name) for name in self.path)
        shortcut = self.BatchNorm_0(wide(x))
        x = first(self.BatchNorm_1(x).relu())
        x = last(self.BatchNorm_2(self.dropout_0(x)).relu())
        return shortcut + self.dropout_1(x)


class Blocks(nn.Module):
    """What all four networks share: residual blocks under the names of ours, one after the other."""

    def __init__(self, *blocks):
        super().__init__()
        self.num_blocks = len(blocks)
        for i, block in enumerate(blocks):
            self.add_module(f"ResidualBlock_{i}", block)

    def run(self, x):
        for i in range(self.num_blocks):
            x = getattr(self, f"ResidualBlock_{i}")(x)
        return x


class Heads(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()
        self.Dense_0 = nn.Linear(320, latent_dim, bias=False)
        self.Dense_1 = nn.Linear(320, latent_dim, bias=False)

    def forward(self, x):
        x = x.flatten(1)
        return self.Dense_0(x), self.Dense_1(x)


class Encoder(Blocks):
    def __init__(self, channels, latent_dim):
        sizes = ((64, 128), (128, 192), (192, 256))
        super().__init__(*(ResidualBlock(2, *size) for size in sizes), ResidualBlock(2, 256, 320, padding=0))
        self.Conv_0 = nn.Conv2d(channels, 64, 3, stride=2, padding=2, bias=False)
        self.Heads_0 = Heads(latent_dim)

    def forward(self, x):
        return self.Heads_0(self.run(self.Conv_0(x)))


class Decoder(Blocks):
    def __init__(self, channels, latent_dim):
        first = ResidualBlock(2, 320, 256, stride=1, padding=0, up=True)
        sizes = ((256, 192), (192, 128), (128, 64))
        super().__init__(first, *(ResidualBlock(2, *size, up=True) for size in sizes))
        self.Dense_0 = nn.Linear(latent_dim, 320)
        self.ConvTranspose_0 = nn.ConvTranspose2d(64, channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, z):
        return self.ConvTranspose_0(self.run(self.Dense_0(z)[:, :, None, None]))


class TextEncoder(Blocks):
    def __init__(self, vocabulary_size, latent_dim):
        sizes = ((64, 128), (128, 192), (192, 256), (256, 320), (320, 320))
        super().__init__(*(ResidualBlock(1, *size) for size in sizes), ResidualBlock(1, 320, 320, padding=0))
        self.vocabulary_size = vocabulary_size
        self.Conv_0 = nn.Conv1d(vocabulary_size, 64, 4, stride=2, padding=1)
        self.Heads_0 = Heads(latent_dim)

    def forward(self, tokens):
        x = functional.one_hot(tokens, self.vocabulary_size).float().transpose(1, 2)
        return self.Heads_0(self.run(self.Conv_0(x)))


class TextDecoder(Blocks):
    def __init__(self, vocabulary_size, latent_dim):
        first = ResidualBlock(1, 320, 320, stride=1, padding=0, up=True)
        sizes = ((320, 320), (320, 256), (256, 192), (192, 128), (128, 64))
        super().__init__(first, *(ResidualBlock(1, *size, up=True) for size in sizes))
        self.Dense_0 = nn.Linear(latent_dim, 320)
        self.ConvTranspose_0 = nn.ConvTranspose1d(64, vocabulary_size, 4, stride=2, padding=1)

    def forward(self, z):
        """Logits [N, V, T]."""
        return self.ConvTranspose_0(self.run(self.Dense_0(z)[:, :, None]))
