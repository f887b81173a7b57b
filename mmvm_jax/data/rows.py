"""Reading and writing of named arrays in blocks of rows, so that files may be larger than memory."""

import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mmvm_jax.data.columns import Levels, names_of, select
from mmvm_jax.data.containers import as_arrays
from mmvm_jax.data.raw import DAMAGED
from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.progress import Progress

_BLOCK_BYTES = 1 << 23
_LARGE_BYTES = 1 << 28  # reading as much takes seconds
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """Shape and type of an array."""

    shape: tuple[int, ...]
    in_columns: bool  # Fortran order, with the first axis fastest
    dtype: np.dtype


def _rows_at_once(array) -> int:
    """Return the number of rows per block of an array, given the array or its header."""
    return max(1, _BLOCK_BYTES // max(1, array.dtype.itemsize * math.prod(array.shape[1:])))


def _with_progress(name: str, array, blocks: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the blocks of an array, given it or its header, and show the progress if it is large."""
    if math.prod(array.shape) * array.dtype.itemsize < _LARGE_BYTES:
        yield from blocks
        return
    with Progress(array.shape[0], "rows", f"reading '{name}'") as progress:
        for start, block in blocks:
            yield start, block
            progress.update(len(block))


class MemoryRows:
    """Rows of arrays in memory, or of .npy files.

    Attributes:
      headers: ``{name: array}``, an ``NpyFiles`` for files.
      columns: ``{name: names of the columns}`` of tables.
      levels: ``{name: {column: its categories}}`` of tables with text.

    Args:
      arrays: by name, in any form that ``containers.as_arrays`` accepts.
      levels, columns: those of training, if any. Other columns are ignored.

    Raises:
      UserError: a value is not an array.
    """

    def __init__(
        self,
        arrays: Mapping,
        levels: Mapping[str, Levels] | None = None,
        columns: Mapping[str, tuple[str, ...]] | None = None,
    ):
        trained = columns or {}
        arrays = {name: select(one, trained[name]) if name in trained else one for name, one in arrays.items()}
        self.levels = dict(levels or {})
        self.headers = as_arrays(arrays, self.levels)
        self.columns = {name: names_of(values) for name, values in arrays.items() if names_of(values)}

    def select_columns(self, name: str, places: list[int]) -> None:
        """Replace a table by its columns at these places."""
        self.headers[name] = self.headers[name][:, places]
        self.columns[name] = tuple(self.columns[name][place] for place in places)

    def read(self, name: str) -> np.ndarray:
        """Read a whole array."""
        return self.headers[name][:]

    def take(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Read the rows of an array with these numbers."""
        return self.headers[name][numbers]

    def array_blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield one array in blocks of rows, each with the number of its first row."""
        array = self.headers[name]
        size = _rows_at_once(array)
        blocks = ((start, array[start : start + size]) for start in range(0, len(array), size))
        return _with_progress(name, array, blocks)

    def blocks(self, names, size: int, length: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield the named arrays in blocks of ``size`` rows, up to their ``length``."""
        for start in range(0, length, size):
            yield {name: self.headers[name][start : start + size] for name in names}


class NpzRows:
    """Rows of the arrays of an .npz file, compressed or not, read sequentially.

    Attributes:
      path: of the file.
      headers: ``{name: Header}``.
      columns, levels: empty, since arrays have no names of columns.

    Args:
      path: of the file. Pickled objects raise an error.
      field: name of the path in errors.

    Raises:
      UserError: it is not an .npz file, or an array in it cannot be read.
    """

    def __init__(self, path: str | os.PathLike, field: str):
        self.path = os.path.expanduser(os.fspath(path))
        if not os.path.isfile(self.path):
            raise UserError(f"{field} is '{path}': no such file; allowed: an .npz file with one array per modality")
        self.headers, self.columns, self.levels = {}, {}, {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.infolist():
                    with archive.open(member) as stream:
                        header = _read_header(member.filename, stream)
                        _check_size(member, header, member.file_size - stream.tell())
                        self.headers[member.filename.removesuffix(".npy")] = header
        except DAMAGED as error:
            raise UserError(f"{field} is '{path}': not an .npz file ({first_line(error)})") from error

    def read(self, name: str) -> np.ndarray:
        """Read a whole array."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[name]
        except DAMAGED as error:
            raise self._unreadable(name, error) from error

    def take(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Read the rows of an array with these numbers."""
        return self.read(name)[numbers]

    def array_blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield one array in blocks of rows, each with the number of its first row."""
        size = _rows_at_once(self.headers[name])
        blocks = ((place * size, block) for place, block in enumerate(self._array_blocks(name, size)))
        return _with_progress(name, self.headers[name], blocks)

    def blocks(self, names, size: int, length: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield the named arrays in blocks of ``size`` rows, up to their ``length``."""
        iterators = [self._array_blocks(name, size) for name in names]
        for _ in range(0, length, size):
            yield {name: next(blocks) for name, blocks in zip(names, iterators, strict=True)}

    def _array_blocks(self, name: str, size: int) -> Iterator[np.ndarray]:
        shape, in_columns, dtype = self.headers[name]
        if in_columns:  # rows are not contiguous
            array = self.read(name)
            yield from (array[start : start + size] for start in range(0, len(array), size))
            return
        row = dtype.itemsize * int(np.prod(shape[1:]))
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                _read_header(name, stream)
                for start in range(0, shape[0], size):
                    count = min(size, shape[0] - start)
                    yield np.frombuffer(stream.read(count * row), dtype).reshape(count, *shape[1:])
        except DAMAGED as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> UserError:
        return UserError(
            f"{self.path}: array '{name}' cannot be read ({first_line(error)}); allowed: numbers of one shape"
        )


def _read_header(member: str, stream) -> Header:
    try:
        header = Header(*_READ_HEADER[np.lib.format.read_magic(stream)](stream))
    except (KeyError, ValueError, SyntaxError) as error:
        raise ValueError(f"its '{member}' is not an array of numbers") from error
    if any(size < 0 for size in header.shape):
        raise ValueError(f"its '{member}' has the shape {list(header.shape)}")
    return header


def _check_size(member: zipfile.ZipInfo, header: Header, size: int) -> None:
    if not header.dtype.hasobject and size != math.prod(header.shape) * header.dtype.itemsize:
        shape = list(header.shape)
        raise ValueError(f"its '{member.filename}' has {size} bytes of values, which do not match its shape {shape}")


def write_npz(path: str | os.PathLike, blocks: Iterator[dict[str, np.ndarray]], length: int) -> None:
    """Write an .npz file atomically, block by block.

    Args:
      path: of the file.
      blocks: {name: [n, ...]}, with the same names in each block.
      length: N, the total number of rows of all blocks.

    Raises:
      UserError: the file cannot be written.
    """
    path = os.path.expanduser(os.fspath(path))
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; allowed: a path for an .npz file")
    try:
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or ".", prefix=".mmvm_jax_") as folder:
            names = _write_arrays(folder, blocks, length)
            whole = os.path.join(folder, "whole.npz")
            with zipfile.ZipFile(whole, "w") as archive:
                for place, name in enumerate(names):
                    part = os.path.join(folder, str(place))
                    archive.write(part, f"{name}.npy")
                    os.remove(part)
            os.replace(whole, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); use another path") from error


def _write_arrays(folder: str, blocks: Iterator[dict[str, np.ndarray]], length: int) -> list[str]:
    """Write one numbered file per array; return the names of the arrays in the order of the numbers."""
    files = {}
    try:
        for block in blocks:
            for name, rows in block.items():
                if name not in files:
                    files[name] = open(os.path.join(folder, str(len(files))), "wb")  # noqa: SIM115, closed below
                    _write_header(files[name], rows, length)
                files[name].write(np.ascontiguousarray(rows))
    finally:
        for file in files.values():
            file.close()
    return list(files)


def _write_header(stream, rows: np.ndarray, length: int) -> None:
    descr = np.lib.format.dtype_to_descr(rows.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (length, *rows.shape[1:])}
    np.lib.format.write_array_header_1_0(stream, header)
