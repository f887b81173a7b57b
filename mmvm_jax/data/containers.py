"""Conversion of lists, DataFrames, sparse and masked arrays to plain NumPy arrays."""

from collections.abc import Mapping

import numpy as np

from mmvm_jax.data.alignment import align
from mmvm_jax.data.arrays import MASK, RESERVED
from mmvm_jax.data.columns import Levels, as_numbers, has_text, is_missing, names_of
from mmvm_jax.data.npy_files import NpyFiles
from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.progress import log


def as_arrays(data: Mapping, levels: dict[str, Levels] | None = None) -> dict:
    """Return plain arrays by name, with masks for the examples that a container marks as absent.

    Accepts NumPy and JAX arrays, nested lists, DataFrames and Series, sparse matrices, masked arrays, and lists of
    arrays with None for absent examples. ``NpyFiles`` stay as they are. A value that is None is left out. Missing
    entries become NaN. Text in DataFrames becomes the numbers of categories.

    Tables whose indexes share labels but differ are aligned by their labels: the examples are all labels, in the order
    of their first appearance, and a table without a label lacks this example.

    Args:
      data: by name.
      levels: {table: levels of its columns}, as in training; those of other tables are added.

    Raises:
      UserError: a value is not an array, or tables cannot be aligned.
    """
    arrays: dict = {}
    levels = {} if levels is None else levels
    for name, values in data.items():
        if isinstance(name, str) and name.endswith(MASK) and data.get(name.removesuffix(MASK), name) is None:
            continue
        if values is None:
            log.info("array '%s' is None and left out", name)
            continue
        if isinstance(values, NpyFiles):
            arrays[name] = values
            continue
        if name not in RESERVED and (has_text(name, values) or (names_of(values) and levels.get(name))):
            array, levels[name] = as_numbers(name, values, levels.get(name, {}))
            present = None
        else:
            array, present = _plain(str(name), values)
        arrays[name] = array
        if present is not None and f"{name}{MASK}" not in data:
            arrays[f"{name}{MASK}"] = present
    return align(data, arrays)


def _plain(name: str, values) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the array, and a mask of its present examples if the container has one."""
    if hasattr(values, "toarray"):  # sparse matrices and arrays of SciPy
        values = values.toarray()
    if np.ma.is_masked(values):
        return _unmasked(values)
    if isinstance(values, (list, tuple)) and any(value is None for value in values):
        return _with_gaps(name, values)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:  # lists of different lengths
        raise UserError(f"'{name}' is not an array ({first_line(error)}); allowed: numbers [N, ...]") from error
    if array.dtype.kind == "V" and not array.dtype.fields and array.dtype.name.startswith(("bfloat", "float")):
        return array.astype(np.float32), None
    if array.dtype.kind == "O" and name not in RESERVED:
        return _of_objects(name, array, getattr(values, "columns", None))
    return array, None


def _unmasked(values: np.ma.MaskedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the data, with NaN for entries masked in a part of an example, and which examples are not masked."""
    masked = np.ma.getmaskarray(values)
    present = np.logical_not(masked.reshape(len(values), -1).all(axis=1))
    data = np.ma.getdata(values)
    return np.where(masked, np.nan, data) if masked[present].any() else data, present


def _with_gaps(name: str, values) -> tuple[np.ndarray, np.ndarray]:
    """Convert a list of examples of equal shape, some of which are None."""
    present = np.array([value is not None for value in values])
    try:
        known = np.stack([np.asarray(value) for value in values if value is not None])
    except ValueError as error:
        raise UserError(f"'{name}' is not an array ({first_line(error)}); allowed: examples of one shape") from error
    array = np.zeros((len(values), *known.shape[1:]), known.dtype)
    array[present] = known
    return array, present


def _of_objects(name: str, array: np.ndarray, columns) -> tuple[np.ndarray, np.ndarray | None]:
    """Convert numbers that are stored as Python objects; missing ones become NaN."""
    if array.ndim == 1 and len(array) and any(np.ndim(value) for value in array):
        return _plain(name, list(array))
    if array.ndim < 2:
        is_mask = name.endswith(MASK) and _all_numbers(array)
        return array.astype(np.float64) if is_mask else array, None
    try:
        of_integers = all(isinstance(value, (int, np.integer)) for value in array.flat)
        return array.astype(np.int64) if of_integers else np.vectorize(_number, otypes=[np.float64])(array), None
    except (TypeError, ValueError, OverflowError) as error:
        wrong = [place for place in range(array.shape[1]) if not _all_numbers(array[:, place])]
        named = [str(columns[place]) if columns is not None else str(place) for place in wrong]
        raise UserError(
            f"array '{name}' has values that are not numbers in column {', '.join(named[:5])} "
            f"({array[0, wrong[0]]!r:.40}); allowed: only numbers; leave out or encode text and dates"
        ) from error


def _number(value) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError("text")
    return np.nan if is_missing(value) else float(value)


def _all_numbers(values: np.ndarray) -> bool:
    try:
        [_number(value) for value in values.ravel()]
    except (TypeError, ValueError):
        return False
    return True
