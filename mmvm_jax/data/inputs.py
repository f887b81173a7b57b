"""Batches of a user's arrays for a trained model, read in blocks of rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmvm_jax.data.arrays import check_finite, common_length, modality_names, read_presence
from mmvm_jax.data.description import Description
from mmvm_jax.data.rows import MemoryRows, NpzRows
from mmvm_jax.data.units import warn_of_codes
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Batch, Modality


class Block(NamedTuple):
    """A block of examples, as given by the user and as the model reads them."""

    arrays: dict[str, np.ndarray]  # {modality name: [n, ...]} of the modalities in the input
    present: np.ndarray  # [M, n] bool
    batch: Batch  # of B >= n rows; the rows after the first n have no modality

    @property
    def count(self) -> int:
        """Number of examples, n."""
        return self.present.shape[1]


class Inputs:
    """Arrays in the layout of ``own_data``, checked against the training data of a model.

    A modality without an array is absent from all examples. Labels and split are ignored.

    Attributes:
      length: N, number of examples.
      present: [M, N] bool.

    Args:
      description: of the training data.
      rows: the arrays.
      names: of the modalities to read; all if empty.

    Raises:
      UserError: an array is unknown, its shape differs from training, or a mask is invalid.
    """

    def __init__(self, description: Description, rows: MemoryRows | NpzRows, names: Sequence[str] = ()):
        self._description, self._rows = description, rows
        offered = modality_names(rows.headers)
        self.length = common_length(rows.headers, offered)
        by_name = {modality.name: modality for modality in description.modalities}
        for name in offered:
            if name not in by_name:
                raise unknown_name("an array of the input", name, by_name)
            order_columns(rows, name, description)
            _check_shape(by_name[name], rows.headers[name])
        for name in names:
            if name not in offered:
                raise unknown_name("a modality given", name, offered)
        self._names = [name for name in by_name if name in (names or offered)]
        self.present = np.stack([self._read_presence(name) for name in by_name])

    def _read_presence(self, name: str) -> np.ndarray:
        if name not in self._names:
            return np.zeros(self.length, bool)
        return read_presence(self._rows, name, self.length)

    def check_not_empty(self) -> None:
        """Raise UserError if an example has no modality."""
        empty = ~self.present.any(axis=0)
        if empty.any():
            raise UserError(
                f"{empty.sum()} examples have no modality to start from, the first is {empty.argmax()}; "
                "allowed: one or more in each example"
            )

    def blocks(self, size: int) -> Iterator[Block]:
        """Yield all examples in order, up to ``size`` at a time.

        Raises:
          UserError: an array has values that are invalid for its modality.
        """
        rows, warned = self._rows.blocks(self._names, size, self.length), set()
        for start, arrays in zip(range(0, self.length, size), rows, strict=True):
            present = self.present[:, start : start + size]
            inputs = {}
            for modality, there in zip(self._description.modalities, present, strict=True):
                name = modality.name
                values = self._values(modality, arrays.get(name), there, start)
                real = modality.real_entries
                if (
                    name in self._description.units
                    and name not in warned
                    and warn_of_codes(name, values[..., real], start)
                ):
                    warned.add(name)
                inputs[name] = _padded(values, size)
            yield Block(arrays, present, _batch(inputs, _padded(present.T, size).T, start))

    def _values(self, modality: Modality, array: np.ndarray | None, there: np.ndarray, start: int) -> np.ndarray:
        """Return the model's inputs of a modality: [n, ...], or [0, ...] if there is no array."""
        if array is None:
            return np.zeros((0, *modality.shape), self._description.dtypes[modality.name])
        check_finite(modality.name, array, there, start, modality.missing_entries)
        return self._description.to_model(modality, array, there)


def empty_batch(num_modalities: int, size: int, start: int) -> Batch:
    """Return a batch of examples without modalities, with indices from ``start`` on."""
    return _batch({}, np.zeros((num_modalities, size), bool), start)


def _batch(inputs, present, start: int) -> Batch:
    size = present.shape[1]
    index = np.arange(start, start + size, dtype=np.int32)
    return Batch(inputs, present, index, np.full(size, -1, np.int32))


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    """Append rows of zeros until there are ``size`` rows."""
    return np.concatenate([values, np.zeros((size - len(values), *values.shape[1:]), values.dtype)])


def _check_shape(modality: Modality, header) -> None:
    given, trained = header.shape[1:], modality.shape
    if given != trained and not (modality.kind == "image" and (*given, 1) == trained):
        allowed = ", ".join(map(str, ("N", *trained)))
        raise UserError(f"array '{modality.name}' is {list(header.shape)}; allowed: [{allowed}], as in training")


def order_columns(rows: MemoryRows | NpzRows, name: str, description: Description) -> None:
    """Bring the columns of a table into the order of training, without columns that training did not have.

    Raises:
      UserError: the table lacks a column, or a column has text where training had numbers.
    """
    given, trained = rows.columns.get(name), description.columns.get(name)
    if not isinstance(rows, MemoryRows) or not given or not trained:
        return
    levels = description.levels.get(name, {})
    if wrong := [one for one in rows.levels.get(name, {}) if one in trained and one not in levels]:
        raise UserError(f"column '{wrong[0]}' of table '{name}' has text; allowed: numbers, as in training")
    if given == trained:
        return
    if lacking := [column for column in trained if column not in given]:
        raise UserError(f"table '{name}' has no column '{lacking[0]}'; allowed: all columns of training, in any order")
    log.info("table '%s': %d columns are read in the order of training", name, len(trained))
    rows.select_columns(name, [given.index(column) for column in trained])
