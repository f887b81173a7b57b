"""Conversion of lists, DataFrames, sparse and masked arrays to plain NumPy arrays."""

from collections.abc import Mapping

import numpy as np

from mmvm_jax.data.alignment import align
from mmvm_jax.data.arrays import MASK, RESERVED
from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.progress import log


def as_arrays(data: Mapping) -> dict[str, np.ndarray]:
    """Return plain arrays by name, with masks for the examples that a container marks as absent.

    Accepts NumPy and JAX arrays, nested lists, DataFrames and Series, sparse matrices, masked arrays in which whole
    examples are masked, and lists of arrays with None for absent examples. A value that is None is left out.

    Tables whose indexes share labels but differ are aligned by their labels: the examples are all labels, in the order
    of their first appearance, and a table without a label lacks this example.

    Raises:
      UserError: a value is not an array, or tables cannot be aligned.
    """
    arrays = {}
    for name, values in data.items():
        if isinstance(name, str) and name.endswith(MASK) and data.get(name.removesuffix(MASK), name) is None:
            continue
        if values is None:
            log.info("array '%s' is None and left out", name)
            continue
        array, present = _plain(str(name), values)
        arrays[name] = array
        if present is not None and f"{name}{MASK}" not in data:
            arrays[f"{name}{MASK}"] = present
    return align(data, arrays)


def columns_of(values) -> tuple[str, ...]:
    """Return the names of the columns of a DataFrame; empty for anything else."""
    columns = getattr(values, "columns", None)
    return () if columns is None or callable(columns) else tuple(map(str, columns))


def _plain(name: str, values) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the array, and a mask of its present examples if the container has one."""
    if hasattr(values, "toarray"):  # sparse matrices and arrays of SciPy
        values = values.toarray()
    if np.ma.is_masked(values):
        return _unmasked(name, values)
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


def _unmasked(name: str, values: np.ma.MaskedArray) -> tuple[np.ndarray, np.ndarray]:
    masked = np.ma.getmaskarray(values).reshape(len(values), -1)
    partly = masked.any(axis=1) & ~masked.all(axis=1)
    if partly.any():
        raise UserError(
            f"array '{name}' has masked values in a part of {partly.sum()} examples, the first is {partly.argmax()}; "
            "allowed: examples masked as a whole; impute single entries first"
        )
    return np.ma.getdata(values), np.logical_not(masked.all(axis=1))


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
    return np.nan if value is None or type(value).__name__ in ("NAType", "NaTType") else float(value)


def _all_numbers(values: np.ndarray) -> bool:
    try:
        [_number(value) for value in values.ravel()]
    except (TypeError, ValueError):
        return False
    return True
