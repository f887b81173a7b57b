"""Standardisation of real-valued data by mean and standard deviation of the training examples.

It is computed in float64, since a column may be far from zero (Unix times that differ by seconds, Julian dates). Only
the standardised values, which are small, are float32.
"""

from collections.abc import Iterable

import numpy as np

from mmvm_jax.data.arrays import MASK
from mmvm_jax.data.dataset import Split
from mmvm_jax.runtime.progress import log

_FAR = 100  # standard deviations of the training data; rare events may be some tens away
_ROWS_AT_ONCE = 1024  # limits the memory of float64 intermediates
# A standard deviation below this many steps of the number format is rounding error, not variation.
_ROUNDING_STEPS = {np.dtype(np.float64): 64, np.dtype(np.float32): 2, np.dtype(np.float16): 1}


def measure(blocks: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of observed examples, so that (x - mean) / scale has mean 0 and standard deviation 1.

    The scale of an entry that is constant up to rounding is 1, or the rounding error if that is larger.

    Args:
      blocks: observed training examples, [n, *shape] each, with NaN for missing entries.
      shape: of one example.
      dtype: of the original data, which determines the rounding error.

    Returns:
      mean and scale, both [*shape] float64.
    """
    count, mean, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    first, varies = np.full(shape, np.nan), np.zeros(shape, bool)
    for block in blocks:
        values = block.astype(np.float64)
        known = ~np.isnan(values)
        added = known.sum(axis=0)
        some = np.maximum(added, 1)
        total = count + added
        first = np.where(np.isnan(first) & (added > 0), _first(values, known), first)
        varies |= (known & (values != first)).any(axis=0)
        centre = np.where(known, values, 0.0).sum(axis=0) / some
        shift = np.where(added > 0, centre - mean, 0.0)
        # Squared deviations of both parts from the overall mean (Chan et al., 1979).
        deviations = np.where(known, values - centre, 0.0)
        squares += (deviations**2).sum(axis=0) + shift**2 * (added * count / np.maximum(total, 1))
        mean, count = mean + shift * (added / np.maximum(total, 1)), total
    scale = np.sqrt(squares / np.maximum(count, 1))
    steps = _ROUNDING_STEPS.get(dtype.newbyteorder("="), 64)
    precision = np.finfo(dtype if dtype.kind == "f" and dtype.itemsize <= 8 else np.float64).eps
    rounding = steps * precision * np.abs(mean)
    scale = np.where(varies, np.where(scale > rounding, scale, np.maximum(1, rounding)), 1)
    return np.where(varies | (count == 0), mean, first), scale


def _first(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the first known value of each entry: [n, ...] -> [...]."""
    place = known.argmax(axis=0) if len(known) else np.zeros(known.shape[1:], int)
    return np.take_along_axis(values, place[None], axis=0)[0] if len(values) else np.full(known.shape[1:], np.nan)


def apply(values: np.ndarray, present: np.ndarray, unit: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Standardise examples [n, ...]: float32, and 0 where ``present`` [n] is False, whatever the values."""
    mean, scale = unit
    standardised = np.zeros(values.shape, np.float32)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        there = present[rows]
        standardised[rows][there] = (values[rows][there].astype(np.float64) - mean) / scale
    return standardised


def standardise(train: Split, test: Split, rows: dict[str, int]):
    """Standardise the named modalities, so that every entry has mean 0 and standard deviation 1 in training.

    Only examples that have the modality are counted.

    Args:
      train, test: splits, which are not modified.
      rows: ``{modality name: its row in present}``.

    Returns:
      The new splits, and ``{name: (mean [...], scale [...])}`` float64: original = x * scale + mean.
    """
    units = {}
    for name, row in rows.items():
        array, present = np.asarray(train.inputs[name]), train.present[row]
        starts = range(0, len(array), _ROWS_AT_ONCE)
        blocks = (array[start : start + _ROWS_AT_ONCE][present[start : start + _ROWS_AT_ONCE]] for start in starts)
        units[name] = measure(blocks, array.shape[1:], array.dtype)
    return _apply(train, units, rows), _apply(test, units, rows), units


def _apply(split: Split, units, rows) -> Split:
    inputs = {name: np.asarray(array) for name, array in split.inputs.items()}
    changed = {name: apply(inputs[name], split.present[rows[name]], unit) for name, unit in units.items()}
    return split._replace(inputs=inputs | changed)


def warn_of_codes(name: str, values: np.ndarray, start: int = 0) -> bool:
    """Warn if standardised values [n, ...] are unlike the training data; ``start`` is the index of the first one."""
    far = (np.abs(values) > _FAR).any(axis=tuple(range(1, values.ndim)))
    if far.any():
        log.warning(
            "array '%s' has values beyond %d standard deviations of the training data, the first in example %d "
            "of these; if they are codes for missing values, mark them in '%s'",
            name,
            _FAR,
            start + far.argmax(),
            name + MASK,
        )
    return bool(far.any())
