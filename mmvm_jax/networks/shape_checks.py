"""Checks that a modality has a shape and a likelihood that a published network supports."""

from mmvm_jax.errors import UserError


def check_shape(network: str, modality, *allowed: tuple[int, ...]) -> None:
    """Raise UserError unless the modality has one of the allowed shapes."""
    if modality.shape not in allowed:
        shapes = " or ".join(" x ".join(map(str, shape)) for shape in allowed)
        raise UserError(
            f"network {network!r}: modality {modality.name!r} has shape {' x '.join(map(str, modality.shape))}; "
            f"allowed for the kind {modality.kind!r}: {shapes}"
        )


def check_likelihood(network: str, modality, *allowed: str) -> None:
    """Raise UserError unless the modality has one of the allowed likelihoods."""
    if modality.likelihood not in allowed:
        raise UserError(
            f"network {network!r}: modality {modality.name!r} has the likelihood {modality.likelihood!r}; "
            f"allowed: {' or '.join(allowed)}"
        )
