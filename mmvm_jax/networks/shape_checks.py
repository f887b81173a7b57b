"""Whether a network that was published for one shape and likelihood fits a modality."""

from mmvm_jax.errors import UserError


def check_shape(network: str, modality, *allowed: tuple[int, ...]) -> None:
    """Raises UserError unless the modality has one of the allowed shapes."""
    if modality.shape not in allowed:
        shapes = " or ".join(" x ".join(map(str, shape)) for shape in allowed)
        raise UserError(
            f"network {network!r} reads a modality of kind {modality.kind!r} of shape {shapes}; "
            f"{modality.name!r} has shape {' x '.join(map(str, modality.shape))}"
        )


def check_likelihood(network: str, modality, *allowed: str) -> None:
    """Raises UserError unless the modality has one of the allowed likelihoods."""
    if modality.likelihood not in allowed:
        raise UserError(
            f"network {network!r} has a decoder for the likelihood {' or '.join(allowed)}; "
            f"{modality.name!r} has {modality.likelihood}"
        )
