"""Strided convolutions for 64 x 64 images, embeddings and convolutions for captions."""

from torch import nn

from benchmarks.peers.weights import LinearFromImage

_BOTH_SIDES = dict(kernel_size=4, stride=2, padding=1)
_COLUMNS = dict(kernel_size=(1, 4), stride=(1, 2), padding=(0, 1))
_ONE_TO_FOUR = dict(kernel_size=4)
_EMBEDDING = 128


def make(modality, latent_dim):
    """The pair (encoder, decoder) of a modality: text for tokens, else image."""
    if modality.kind == "tokens":
        return TextEncoder(modality.vocabulary_size, latent_dim), TextDecoder(modality.vocabulary_size, latent_dim)
    return Encoder(modality.shape[-1], latent_dim), Decoder(modality.shape[-1], latent_dim)


class Stack(nn.Module):
    """Convolutions, or their transposes, each followed by batch normalisation if asked and a ReLU."""

    def __init__(self, kind, channels, forms, normalised):
        super().__init__()
        make = {"Conv": nn.Conv2d, "ConvTranspose": nn.ConvTranspose2d}[kind]
        self.layers = []
        for i, (before, after, form) in enumerate(zip(channels, channels[1:], forms)):
            self.add_module(f"{kind}_{i}", make(before, after, **form, bias=not normalised))
            self.layers.append([f"{kind}_{i}"])
            if normalised:
                self.add_module(f"BatchNorm_{i}", nn.BatchNorm2d(after))
                self.layers[-1].append(f"BatchNorm_{i}")

    def run(self, x):
        for names in self.layers:
            for name in names:
                x = getattr(self, name)(x)
            x = x.relu()
        return x


class Encoder(Stack):
    def __init__(self, channels, latent_dim):
        super().__init__("Conv", (channels, 64, 128, 256, 512), [_BOTH_SIDES] * 4, normalised=False)
        self.Dense_0 = LinearFromImage(512, (4, 4), 2 * latent_dim)

    def forward(self, x):
        return self.Dense_0(self.run(x).flatten(1)).chunk(2, dim=1)


class Decoder(Stack):
    def __init__(self, channels, latent_dim):
        forms = [_ONE_TO_FOUR] + [_BOTH_SIDES] * 3
        super().__init__("ConvTranspose", (latent_dim, 512, 256, 128, 64), forms, normalised=False)
        self.ConvTranspose_4 = nn.ConvTranspose2d(64, channels, **_BOTH_SIDES)

    def forward(self, z):
        return self.ConvTranspose_4(self.run(z[:, :, None, None])).sigmoid()


class TextEncoder(Stack):
    def __init__(self, vocabulary_size, latent_dim):
        forms = [_BOTH_SIDES] * 3 + [_COLUMNS] * 2
        super().__init__("Conv", (1, 32, 64, 128, 128, 128), forms, normalised=True)
        self.Embed_0 = nn.Embedding(vocabulary_size, _EMBEDDING)
        self.Dense_0 = LinearFromImage(128, (4, 4), 2 * latent_dim, bias=False)

    def forward(self, tokens):
        x = self.run(self.Embed_0(tokens)[:, None])
        return self.Dense_0(x.flatten(1)).chunk(2, dim=1)


class TextDecoder(Stack):
    def __init__(self, vocabulary_size, latent_dim):
        forms = [_ONE_TO_FOUR] + [_COLUMNS] * 2 + [_BOTH_SIDES] * 2
        super().__init__("ConvTranspose", (latent_dim, 128, 128, 128, 64, 32), forms, normalised=True)
        self.ConvTranspose_5 = nn.ConvTranspose2d(32, 1, **_BOTH_SIDES, bias=False)
        self.Dense_0 = nn.Linear(_EMBEDDING, vocabulary_size)

    def forward(self, z):
        """Logits [N, V, T]."""
        x = self.ConvTranspose_5(self.run(z[:, :, None, None])).relu()
        return self.Dense_0(x[:, 0]).transpose(1, 2)
