"""Choices of the user for single modalities, written as name=value,name=value."""

from collections.abc import Collection, Iterator, Sequence

from mmvm_jax.errors import Range, UserError, unknown_name

_WEIGHT = Range(1e-6, 1e6)


def parse(field: str, text: str, allowed: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Parse ``name=value,name=value``, with values of a table."""
    chosen = dict(_pairs(field, text, allowed))
    for name, value in chosen.items():
        if value not in allowed[name]:
            raise unknown_name(f"config.data.{field} for '{name}'", value, allowed[name])
    return chosen


def parse_weights(text: str, names: Sequence[str]) -> dict[str, float]:
    """Parse ``name=weight,name=weight``."""
    weights = {}
    for name, value in _pairs("weights", text, names):
        try:
            weights[name] = float(value)
        except ValueError as error:
            allowed = _WEIGHT.allowed
            raise UserError(f"config.data.weights for '{name}' is {value!r}; allowed: {allowed}") from error
        _WEIGHT.check(f"config.data.weights for '{name}'", weights[name])
    return weights


def _pairs(field: str, text: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of ``name=value,name=value``."""
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = map(str.strip, part.partition("="))
        if name not in names:
            raise unknown_name(f"the modality in config.data.{field}", name, names)
        yield name, value
