"""MMVM as a PyTorch user would write it: all modalities' networks and the loss of a batch."""

import math

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import PEERS
from benchmarks.peers.weights import load


class MMVM(nn.Module):
    """Encoders and decoders of all modalities, with the weights of ours."""

    def __init__(self, model, what, variables):
        super().__init__()
        self.modalities = model.modalities
        pairs = [PEERS[what].make(modality, model.latent_dim) for modality in model.modalities]
        for part, networks in zip(("encoders", "decoders"), zip(*pairs)):
            setattr(self, part, nn.ModuleList(networks))
            for place, group in enumerate(model.groups):
                for i, row in enumerate(group.rows):
                    load(networks[row], jax.tree.map(lambda leaf: np.asarray(leaf[i]), variables[part][place]))

    def forward(self, inputs, noise):
        """The mean loss in nats: inputs a list of [B, ...], images channels first; noise [M, B, D]."""
        posteriors = [encoder(x) for encoder, x in zip(self.encoders, inputs)]
        mean, log_variance = (torch.stack(parts) for parts in zip(*posteriors))
        z = mean + torch.exp(0.5 * log_variance) * noise
        loss = divergence(mean, log_variance).sum(0)
        for modality, decoder, x, latent in zip(self.modalities, self.decoders, inputs, z):
            loss = loss - modality.weight * log_likelihood(modality, x, decoder(latent))
        return loss.mean()


def divergence(mean, log_variance):
    """Mean divergence of every posterior [M, B, D] to all of them: [M, B]."""
    ratio = log_variance[:, None] - log_variance[None]
    distance = (mean[:, None] - mean[None]) ** 2 * torch.exp(-log_variance)[None]
    return 0.5 * (torch.expm1(ratio) - ratio + distance).sum(-1).mean(1)


def log_likelihood(modality, x, output):
    """[B] nats."""
    if modality.likelihood == "categorical":
        return -functional.cross_entropy(output, x, ignore_index=modality.padding, reduction="none").sum(1)
    error = (x - output).flatten(1) / modality.scale
    if modality.likelihood == "laplace":
        return -(error.abs() + math.log(2 * modality.scale)).sum(1)
    return -0.5 * (error**2 + math.log(2 * math.pi * modality.scale**2)).sum(1)


def to_torch(modality, x):
    """A prepared batch of ours as a PyTorch user holds it."""
    array = np.asarray(x)
    if modality.kind == "image":
        array = np.moveaxis(array, -1, 1)
    return torch.tensor(array.copy(), dtype=torch.int64 if modality.kind == "tokens" else torch.float32)
