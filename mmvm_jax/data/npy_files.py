"""Arrays in .npy files, whose rows are read when they are needed."""

import os
from collections.abc import Sequence

import numpy as np

from mmvm_jax.errors import UserError, first_line


class NpyFiles:
    """The rows of one or more .npy files, one file after the other. Indexing reads rows into memory.

    Each access maps the file and copies its rows, so that no pages of the files count as memory of the process.

    Attributes:
      shape: [N, ...].
      dtype: of the values.

    Args:
      paths: of the files, one or more.

    Raises:
      UserError: a file cannot be read, or differs from the first in type or in the shape of its rows.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        self._paths = list(paths)
        self._versions = [_version(path) for path in self._paths]
        parts = [_open(path) for path in self._paths]
        self.dtype, row = parts[0].dtype, parts[0].shape[1:]
        for path, part in zip(self._paths, parts, strict=True):
            if part.ndim == 0 or part.shape[1:] != row or part.dtype != self.dtype:
                allowed = ", ".join(["N", *map(str, row)])
                raise UserError(f"{path} is {part.dtype} {list(part.shape)}; allowed: {self.dtype} [{allowed}]")
        self._starts = np.cumsum([0, *map(len, parts)])
        self.shape = int(self._starts[-1]), *row

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Read a slice of rows, or the rows with these numbers or this mask."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, stop)
            rows = np.arange(start, stop, step)
        numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
        values = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        files = np.searchsorted(self._starts, numbers, side="right") - 1
        for file in np.unique(files):
            values[files == file] = self._part(file)[numbers[files == file] - self._starts[file]]
        return values

    def _between(self, start: int, stop: int) -> np.ndarray:
        values = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        for file, (first, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            low, high = max(start, first), min(stop, end)
            if low < high:
                values[low - start : high - start] = self._part(file)[low - first : high - first]
        return values

    def _part(self, file: int) -> np.ndarray:
        path = self._paths[file]
        if _version(path) != self._versions[file]:
            raise UserError(f"{path} has changed while it was in use; start again")
        return _open(path)


def _version(path) -> tuple[int, int] | None:
    """Return the time and size of a file; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _open(path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read ({first_line(error)}); allowed: numbers, or text as by array.astype(str)"
        ) from error
