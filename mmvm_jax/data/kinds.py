"""Inference of the kind of an array from its type, shape and values. ``own_data`` documents the rules."""

from typing import NamedTuple

import numpy as np

from mmvm_jax.data.arrays import ROUNDING, check_channels, check_finite, seen
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import log

# The likelihoods allowed for each kind; the first is the default.
LIKELIHOODS = {
    "image": ("laplace", "normal", "bernoulli"),
    "vector": ("normal", "laplace"),
    "counts": ("poisson", "normal"),
    "tokens": ("categorical",),
}
_LARGEST_MEAN_COUNT = 3
_SHORTEST_TEXT = 5  # tokens; a narrow table of counts may look padded by chance
_LONGEST_PICTURE = 4  # ratio of the sides of a picture; series are longer
_COLOURS = (1, 3, 4)  # numbers of channels of pictures


class Facts(NamedTuple):
    """Properties of the present examples of an array [N, ...]."""

    shape: tuple[int, ...]
    dtype: np.dtype
    lowest: float  # 0 if nothing is present
    highest: float
    mean: float
    whole: bool  # whether all values are integers
    padding: int  # from ``find_padding``; -1 for all arrays except tables of integers


def read_facts(rows, name: str, present: np.ndarray) -> Facts:
    """Return the properties of an array, and check that it is finite.

    Args:
      rows: the arrays, ``MemoryRows`` or ``NpzRows``.
      name: of the array.
      present: [N] bool.

    Raises:
      UserError: a present value is not finite, or too large.
    """
    shape, dtype = rows.headers[name].shape, rows.headers[name].dtype
    lowest, highest, total, count, whole = np.inf, -np.inf, 0.0, 0, True
    for start, block in rows.array_blocks(name):
        there = present[start : start + len(block)]
        check_finite(name, block, there, start)
        observed = block if there.all() else block[there]
        if observed.size:
            lowest, highest = min(lowest, observed.min()), max(highest, observed.max())
            total, count = total + observed.sum(dtype=np.float64), count + observed.size
            whole = whole and (dtype.kind != "f" or bool((observed == np.round(observed)).all()))
    of_integers = len(shape) == 2 and dtype.kind in "iub" and count
    padding = find_padding(rows.read(name)[present]) if of_integers else -1
    if not count:
        return Facts(shape, dtype, 0.0, 0.0, 0.0, whole, padding)
    return Facts(shape, dtype, lowest, highest, total / count, whole, padding)


def infer_kind(facts: Facts) -> str:
    """Return the kind of an array by the rules documented in ``own_data``."""
    axes, is_integer = len(facts.shape), facts.dtype.kind in "iub"
    if axes in (3, 4):
        in_range = facts.lowest >= -ROUNDING and facts.highest <= 1 + ROUNDING
        sides = facts.shape[1:3]
        is_series = axes == 3 and not is_integer and max(sides) > _LONGEST_PICTURE * min(sides)
        return "image" if is_integer or (in_range and not is_series) else "vector"
    if axes != 2 or not is_integer or facts.lowest < 0:
        return "vector"
    if facts.shape[1] >= _SHORTEST_TEXT and facts.padding >= 0:
        return "tokens"
    return "counts" if facts.mean <= _LARGEST_MEAN_COUNT else "vector"


def check_inferred(name: str, facts: Facts, kind: str) -> None:
    """Reject pictures in an unsupported form, and log a hint if an array may have another kind.

    Raises:
      UserError: an array looks like an image with channels first, or with values outside 0 to 1.
    """
    if kind != "vector" or facts.dtype.kind != "f":
        return
    if len(facts.shape) == 4:
        _check_picture(name, facts)
    elif len(facts.shape) == 2 and facts.whole and facts.lowest >= 0:
        log.info("array '%s' holds integers; if they are counts, set config.data.kinds=%s=counts", name, name)


def _check_picture(name: str, facts: Facts) -> None:
    forms = {
        f"{name}.astype('uint8')": facts.whole and facts.lowest >= 0 and facts.highest <= 255,
        f"({name} + 1) / 2": facts.lowest >= -1 and facts.highest <= 1,
    }
    remedy = next((remedy for remedy, fits in forms.items() if fits), None)
    if remedy:
        check_channels(name, facts.shape)
    if facts.shape[-1] not in _COLOURS or min(facts.shape[1:3]) < 8:
        return
    if remedy:
        raise UserError(
            f"array '{name}' is {seen(facts)} with values from {facts.lowest:g} to {facts.highest:g}, like pictures "
            f"with another range than 0 to 1; allowed: {remedy}, or another kind by config.data.kinds={name}=vector"
        )
    log.info("array '%s' is taken as measurements, not as pictures: its values are not in 0 to 1", name)


def find_padding(ids: np.ndarray) -> int:
    """Return the id that pads rows [N, T] at their end; -1 if there is none."""
    if ids.size == 0 or ids.shape[1] < 2:
        return -1
    values, counts = np.unique(ids[:, -1], return_counts=True)
    padding = values[counts.argmax()]
    is_padding = ids == padding
    ends_only = not (is_padding[:, :-1] & ~is_padding[:, 1:]).any()
    fills = is_padding[:, -1].mean() >= 0.5 and is_padding[:, -2].any() and not is_padding.all()
    return int(padding) if ends_only and fills and ids.min() >= 0 else -1
