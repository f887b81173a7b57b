"""Architecture families: one module each, with its ``KINDS``, an ``Encoder``, a ``Decoder`` and ``make``.

A family may have several encoders and decoders, by the kind or shape of a modality. An encoder maps an input
[N, *shape], for tokens integer ids, to ``DiagonalGaussian`` [N, D]; a decoder maps a latent [N, D] to the
parameters of the modality's likelihood, [N, *shape], for tokens logits [N, *shape, V]. Those with batch
statistics are also given a ``normalization.Training`` in training.
"""

from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.networks import by_kind, celeba, cub, hippocampal, mimic_cxr, mlp, mnist_svhn, polymnist_resnet, small_cnn

NETWORKS = {
    "by_kind": by_kind,
    "celeba": celeba,
    "cub": cub,
    "hippocampal": hippocampal,
    "mimic_cxr": mimic_cxr,
    "mlp": mlp,
    "mnist_svhn": mnist_svhn,
    "polymnist_resnet": polymnist_resnet,
    "small_cnn": small_cnn,
}


def make(modality, config):
    """The pair (encoder, decoder) of a modality; equal pairs can share a bank.

    Args:
      modality: a ``Modality``.
      config: ``config.network``: ``name``, ``latent_dim`` and a sub-dictionary for each family with options.

    Raises:
      UserError: the name is in no table, or the network does not fit the modality's kind or shape.
    """
    if config.name not in NETWORKS:
        raise unknown_name("config.network.name", config.name, NETWORKS)
    if modality.kind not in NETWORKS[config.name].KINDS:
        fitting = [name for name, network in NETWORKS.items() if modality.kind in network.KINDS]
        raise UserError(
            f"network {config.name!r} does not fit modality {modality.name!r} of kind {modality.kind!r}; "
            f"networks that fit: {', '.join(fitting) or 'none'}"
        )
    return NETWORKS[config.name].make(modality, config)
