"""Families of architectures: one module per family, with ``KINDS``, an ``Encoder``, a ``Decoder`` and ``make``.

A family may have several encoders and decoders, for different kinds or shapes of modalities. An encoder maps an input
[N, *shape], for tokens integer ids, to ``DiagonalGaussian`` [N, D]. A decoder maps a latent [N, D] to the parameters of
the modality's likelihood, [N, *output_shape]. Networks with batch statistics also receive a
``normalization.Training`` during training. A module with ``READS_MISSING_ENTRIES`` has encoders that read NaN as
missing.
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
    """Return the encoder and the decoder of a modality. Modalities with equal pairs can share a bank.

    Args:
      modality: a ``Modality``.
      config: ``config.network``: ``name``, ``latent_dim`` and one sub-dictionary per family with options.

    Raises:
      UserError: the name is unknown, or the network does not fit the modality's kind or shape.
    """
    if config.name not in NETWORKS:
        raise unknown_name("config.network.name", config.name, NETWORKS)
    if modality.kind not in NETWORKS[config.name].KINDS:
        fitting = [name for name, network in NETWORKS.items() if modality.kind in network.KINDS]
        raise UserError(
            f"network {config.name!r} does not fit modality {modality.name!r} of kind {modality.kind!r}; "
            f"networks that fit: {', '.join(fitting) or 'none'}"
        )
    if modality.missing_entries and not hasattr(NETWORKS[config.name], "READS_MISSING_ENTRIES"):
        reading = [name for name, network in NETWORKS.items() if hasattr(network, "READS_MISSING_ENTRIES")]
        raise UserError(
            f"network {config.name!r} does not read modality {modality.name!r}, in which single entries are missing; "
            f"networks that do: {', '.join(reading)}"
        )
    return NETWORKS[config.name].make(modality, config)
