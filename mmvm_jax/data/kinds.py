"""Inference of the kind of an array from its type, shape and values. ``own_data`` documents the rules."""

from typing import NamedTuple

import numpy as np

from mmvm_jax.data.arrays import ROUNDING, check_channels, check_finite, seen
from mmvm_jax.data.batches import some_rows
from mmvm_jax.data.columns import look_like_counts
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import log

# The likelihoods allowed for each kind; the first is the default.
LIKELIHOODS = {
    "image": ("laplace", "normal", "bernoulli"),
    "vector": ("normal_learned_scale", "normal", "laplace", "laplace_learned_scale", "student_t"),
    "counts": ("poisson", "negative_binomial", "normal"),
    "binary": ("bernoulli",),
    "table": ("by_column",),
    "tokens": ("categorical",),
}
WITH_MISSING_ENTRIES = ("vector", "counts", "binary", "table")
_FEWEST_LEVELS = 64  # of integer pictures
_OVERDISPERSED = 3.0  # variance of a count divided by its mean; a mixture of few rates has less
_SHORTEST_TEXT = 5  # tokens; a narrow table of counts may look padded by chance
_LONGEST_PICTURE = 4  # ratio of the sides of a picture; series are longer
_TAIL = 10  # ratio of the highest of skewed counts to their mean
_EXAMPLES = 100_000  # most examples in which padding is searched
_COLOURS = (1, 3, 4)  # numbers of channels of pictures


class Facts(NamedTuple):
    """Properties of the present examples of an array [N, ...]."""

    shape: tuple[int, ...]
    dtype: np.dtype
    lowest: float  # 0 if nothing is present
    highest: float
    mean: float
    whole: bool  # whether all values are integers
    zeros: float  # share of zeros
    tops: float  # share of the highest value
    missing: bool  # whether single entries are missing
    known: int  # number of known values
    tail: float  # highest value divided by the mean, the median over the columns of an array with two axes; else 0
    padding: int  # from ``find_padding``; -1 for all arrays except tables of integers


def read_facts(rows, name: str, present: np.ndarray) -> Facts:
    """Return the properties of an array, and check that its known entries are finite.

    Args:
      rows: the arrays, ``MemoryRows`` or ``NpzRows``.
      name: of the array.
      present: [N] bool.

    Raises:
      UserError: a present value is not finite, or too large.
    """
    shape, dtype = rows.headers[name].shape, rows.headers[name].dtype
    parts, whole, missing = [], True, False
    columns = np.zeros((3, *shape[1:]))
    for start, block in rows.array_blocks(name):
        there = present[start : start + len(block)]
        check_finite(name, block, there, start, missing=True)
        known = block if there.all() else block[there]
        columns = _with_block(columns, known) if len(shape) == 2 and len(known) else columns
        if dtype.kind == "f":
            unknown = np.isnan(known)
            known, missing = known[~unknown], missing or bool(unknown.any())
            whole = whole and bool((known == np.round(known)).all())
        if known.size:
            highest = known.max()
            sums = known.sum(dtype=np.float64), known.size, (known == 0).sum(), (known == highest).sum()
            parts.append((known.min(), highest, *sums))
    of_integers = len(shape) == 2 and dtype.kind in "iub" and parts
    padding = find_padding(some_examples(rows, name, present)) if of_integers else -1
    if not parts:
        return Facts(shape, dtype, 0.0, 0.0, 0.0, whole, 0.0, 0.0, missing, 1, 0.0, padding)
    lows, highs, totals, counts, zeros, tops = zip(*parts, strict=True)
    count, highest = sum(counts), max(highs)
    top = sum(number for high, number in zip(highs, tops, strict=True) if high == highest)
    shares = sum(zeros) / count, top / count
    mean, tail = sum(totals) / count, _tail(columns)
    return Facts(shape, dtype, min(lows), highest, mean, whole, *shares, missing, count, tail, padding)


def _with_block(columns: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Return the highest value, sum and number of the known values of each column, [3, C], with a block [n, C]."""
    highest, total, number = columns
    highest = np.fmax(highest, np.fmax.reduce(block, axis=0))
    total = total + np.nansum(block, axis=0, dtype=np.float64)
    return np.stack([highest, total, number + (~np.isnan(block)).sum(axis=0)])


def _tail(columns: np.ndarray) -> float:
    """Return the highest value divided by the mean, the median over the columns with a positive mean; 0 without any."""
    highest, total, number = columns[:, columns[1] > 0]
    return float(np.median(highest * number / total)) if total.size else 0.0


def infer_kind(facts: Facts) -> str:
    """Return the kind of an array by the rules documented in ``own_data``."""
    axes, is_integer = len(facts.shape), facts.dtype.kind in "iub"
    has_tail = facts.tail > _TAIL
    of_counts = look_like_counts(facts.mean, facts.zeros, facts.tops, facts.known)
    may_be_counts = facts.lowest >= 0 and (has_tail or of_counts)
    if axes == 3 and facts.dtype.kind in "iu" and facts.dtype != np.uint8 and facts.highest < _FEWEST_LEVELS:
        return "counts" if may_be_counts else "vector"
    if axes in (3, 4):
        in_range = facts.lowest >= -ROUNDING and facts.highest <= 1 + ROUNDING
        sides = facts.shape[1:3]
        is_series = axes == 3 and not is_integer and max(sides) > _LONGEST_PICTURE * min(sides)
        return "image" if is_integer or (in_range and not is_series) else "vector"
    if axes != 2 or not facts.whole or facts.lowest < 0:
        return "vector"
    if facts.highest <= 1:
        return "binary"
    if is_integer and facts.shape[1] >= _SHORTEST_TEXT and facts.padding >= 0:
        return "tokens"
    return "counts" if may_be_counts else "vector"


def infer_likelihood(kind: str, ratio: float) -> str:
    """Return the default likelihood of a kind. ``ratio`` is the variance of counts divided by their mean."""
    return "negative_binomial" if kind == "counts" and ratio > _OVERDISPERSED else LIKELIHOODS[kind][0]


def check_inferred(name: str, facts: Facts, kind: str) -> None:
    """Reject pictures in an unsupported form, and log a hint if an array may have another kind.

    Raises:
      UserError: an array looks like an image with channels first, or with values outside 0 to 1.
    """
    if kind != "vector":
        return
    if len(facts.shape) == 4 and facts.dtype.kind == "f":
        _check_picture(name, facts)
    elif len(facts.shape) == 2 and facts.whole and facts.lowest >= 0:
        log.info("array '%s' of integers is standardised; for counts, set config.data.kinds=%s=counts", name, name)


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


def some_examples(rows, name: str, present: np.ndarray) -> np.ndarray:
    """Return the present examples of an array, or so many at random that memory holds them."""
    numbers = np.flatnonzero(present)
    return rows.take(name, numbers[some_rows(len(numbers), _EXAMPLES)])


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
