"""The models of MultiVae with the networks and the weights of ours."""

import jax
import numpy as np
import torch
from multivae.data.datasets import MultimodalBaseDataset
from multivae.models import (
    MMVAE,
    MVAE,
    MVTCAE,
    MMVAEConfig,
    MMVAEPlus,
    MMVAEPlusConfig,
    MoPoE,
    MoPoEConfig,
    MVAEConfig,
    MVTCAEConfig,
)
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from benchmarks.peers import PEERS
from benchmarks.peers.mmvm import to_torch
from benchmarks.peers.weights import load

# The options whose defaults differ from ours.
IMPORTANCE = {"K": 1, "prior_and_posterior_dist": "normal", "loss": "iwae_looser"}
MODELS = {
    "mvae": (MVAE, MVAEConfig, {"warmup": 0}),
    "mmvae": (MMVAE, MMVAEConfig, IMPORTANCE | {"learn_prior": False}),
    "mopoe": (MoPoE, MoPoEConfig, {}),
    "mmvae_plus": (MMVAEPlus, MMVAEPlusConfig, IMPORTANCE),
    "mvtcae": (MVTCAE, MVTCAEConfig, {"alpha": 5 / 6, "beta": 1.0}),
}


class Encoder(BaseEncoder):
    """A network of ours as MultiVae calls it. Our latents begin with the private part, if there is one."""

    def __init__(self, network, private_dim):
        super().__init__()
        self.network, self.private_dim = network, private_dim

    def forward(self, x):
        mean, log_variance = self.network(x)
        if not self.private_dim:
            return ModelOutput(embedding=mean, log_covariance=log_variance)
        at = [self.private_dim, mean.shape[1] - self.private_dim]
        (style, shared), (log_style, log_shared) = mean.split(at, dim=1), log_variance.split(at, dim=1)
        return ModelOutput(
            embedding=shared, log_covariance=log_shared, style_embedding=style, style_log_covariance=log_style
        )


class Decoder(BaseDecoder):
    """A network of ours as MultiVae calls it, with the private part of the latents last."""

    def __init__(self, network, private_dim):
        super().__init__()
        self.network, self.private_dim = network, private_dim

    def forward(self, z):
        return ModelOutput(reconstruction=self.network(z.roll(self.private_dim, dims=1)))


def make(method, what, model, variables, private_dim):
    """MultiVae's model of a method; ``private_dim`` is 0 if all latent dimensions are shared."""
    kind, config, options = MODELS[method]
    encoders, decoders = {}, {}
    for modality in model.modalities:
        encoder, decoder = PEERS[what].make(modality, model.latent_dim)
        encoders[modality.name], decoders[modality.name] = Encoder(encoder, private_dim), Decoder(decoder, private_dim)
    for part, networks in {"encoders": encoders, "decoders": decoders}.items():
        for place, group in enumerate(model.groups):
            for i, row in enumerate(group.rows):
                weights = jax.tree.map(lambda leaf: np.asarray(leaf[i]), variables[part][place])
                load(networks[model.names[row]].network, weights)
    if private_dim:
        options = options | {"modalities_specific_dim": private_dim}
    settings = config(
        n_modalities=len(model.modalities),
        latent_dim=model.latent_dim - private_dim,
        decoders_dist={modality.name: modality.likelihood for modality in model.modalities},
        decoder_dist_params={modality.name: {"scale": modality.scale} for modality in model.modalities},
        **options,
    )
    return kind(settings, encoders, decoders)


def dataset(model, batch):
    """The examples as MultiVae reads them: prepared once, before training."""
    inputs = model.prepare(batch).inputs
    data = {modality.name: to_torch(modality, inputs[modality.name]) for modality in model.modalities}
    return MultimodalBaseDataset(data=data)


def gradient_norm(peer) -> float:
    """The norm over the parameters of all encoders and decoders."""
    networks = [*peer.encoders.parameters(), *peer.decoders.parameters()]
    return float(torch.sqrt(sum((parameter.grad**2).sum() for parameter in networks)))
