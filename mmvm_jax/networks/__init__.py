"""Architecture families: one module each, with an ``Encoder``, a ``Decoder`` and ``make``."""

from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.networks import mlp, small_cnn

NETWORKS = {"mlp": mlp, "small_cnn": small_cnn}


def make(modality, config):
    """The pair (encoder, decoder) of a modality; equal pairs can share a bank.

    Args:
      modality: a ``Modality``.
      config: ``config.network``: ``name``, ``latent_dim`` and a sub-dictionary for each family.

    Raises:
      UserError: the name is in no table, or the network does not fit the modality's kind.
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
