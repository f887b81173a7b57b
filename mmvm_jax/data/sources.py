"""The files and folders that ``own_data`` reads, and AnnData and MuData as tables.

my.npz          one array per modality
my_folder/      one file per modality: <name>.npy, <name>.parquet or <name>.csv, or a folder <name>/ of .npy files
                that follow each other in the order of their names, with numbers as numbers. The first column of a
                .csv file is the index if it has no name, as pandas writes it, or is called an id, such as
                "patient_id" or "barcode", and has no value twice
my.h5mu         MuData: one table per modality, aligned by the names of the cells
my.h5ad         AnnData: the table ``X``, and the DataFrames in ``obsm``
my.zarr         either of them
"""

import importlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping

import numpy as np

from mmvm_jax.data.arrays import MASK, RESERVED, is_name_of_ids
from mmvm_jax.data.description import Description
from mmvm_jax.data.npy_files import NpyFiles
from mmvm_jax.data.raw import natural_key
from mmvm_jax.data.rows import MemoryRows, NpzRows
from mmvm_jax.data.tables import separator_of
from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.progress import log


def read_source(path: str | os.PathLike, field: str) -> Mapping | NpzRows:
    """Return the contents of a file or folder by name, or the rows of an .npz file.

    Args:
      path: of one of the forms above.
      field: name of the path in errors.

    Raises:
      UserError: there is no such file, it cannot be read, or a package that reads it is not installed.
    """
    expanded = pathlib.Path(path).expanduser()
    if expanded.is_file() and expanded.suffix.lower() in _TABLES:
        raise UserError(f"{field} is '{path}', a single modality; allowed: a folder with one such file per modality")
    read = _READERS.get(expanded.suffix, _read_folder if expanded.is_dir() else None)
    if os.fspath(path) and read and expanded.exists():
        return as_tables(read(expanded))
    return NpzRows(path, field)


def rows_of(source: Mapping | NpzRows, like: Description | None = None) -> MemoryRows | NpzRows:
    """Return the rows of what ``read_source`` returned, its tables read like those of training if there was one."""
    if isinstance(source, NpzRows):
        return source
    return MemoryRows(source, like.levels, like.columns) if like else MemoryRows(source)


def as_tables(data) -> Mapping:
    """Return MuData or AnnData as DataFrames by name, also inside a mapping; other values as they are.

    Of AnnData, ``X`` and the DataFrames in ``obsm`` are modalities. Within a mapping or MuData, AnnData stands for its
    ``X``. Other arrays in ``obsm`` are left out, since they are mostly derived from ``X``.

    Raises:
      UserError: an AnnData has no ``X``, or no cell is in two modalities of MuData.
    """
    if hasattr(data, "mod"):
        tables = {name: _of_cells(name, table) for name, table in data.mod.items()}
        names = [cell for table in tables.values() for cell in table.index]
        if len(tables) > 1 and len(set(names)) == len(names):
            raise UserError(
                f"no cell is in two of the modalities {', '.join(tables)}, which have names such as {names[0]!r} and "
                f"{names[-1]!r}; allowed: the same name (obs_names) for the same cell"
            )
        return tables
    if _is_annotated(data):
        frames = {name: values for name, values in data.obsm.items() if hasattr(values, "columns")}
        return frames if data.X is None and frames else {"X": _of_cells("X", data), **frames}
    if isinstance(data, Mapping) and any(map(_is_annotated, data.values())):
        return {name: _of_cells(name, one) if _is_annotated(one) else one for name, one in data.items()}
    return data


def _is_annotated(values) -> bool:
    return hasattr(values, "to_df") and hasattr(values, "obsm")


def _of_cells(name: str, annotated):
    """Return the ``X`` of AnnData as a DataFrame."""
    if annotated.X is None:
        raise UserError(f"'{name}' is AnnData without X; allowed: numbers in X, or DataFrames in obsm")
    return (annotated.to_memory() if annotated.isbacked else annotated).to_df()


def _read_folder(folder: pathlib.Path) -> dict:
    """Return the contents of all files of a folder by the names of the files."""
    found: dict = {}
    for path in sorted(folder.iterdir()):
        read = _TABLES.get(path.suffix.lower()) if path.is_file() else _read_arrays
        if path.name.startswith("."):
            continue
        if read is None or (path.is_dir() and not any(path.glob("*.npy"))):  # such as the workdir of a run
            log.info("%s is not read; modalities are %s, or folders of .npy files", path, ", ".join(_TABLES))
            continue
        if path.stem in found:
            raise UserError(f"{folder} has two files of the modality '{path.stem}'; allowed: one")
        values = read(path)
        is_column = path.stem in RESERVED or path.stem.endswith(MASK)  # and not a table of one column
        found[path.stem] = values.squeeze("columns") if is_column and hasattr(values, "columns") else values
    if not found:
        raise UserError(f"{folder} has no modality; allowed: files {', '.join(_TABLES)}")
    return found


def write_folder(path: str | os.PathLike, compute: Callable[[], Mapping]) -> None:
    """Write DataFrames as <name>.parquet and arrays as <name>.npy, replacing earlier files of these names.

    Args:
      path: of the folder, which is made first.
      compute: function that returns the contents by name.

    Raises:
      UserError: the folder cannot be written, or pandas or pyarrow is not installed.
    """
    folder = pathlib.Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".mmvm_jax_") as temporary:
            for name, values in compute().items():
                is_table = hasattr(values, "to_parquet")
                part = pathlib.Path(temporary, f"{name}.parquet" if is_table else f"{name}.npy")
                if is_table:
                    values.rename(columns=str).to_parquet(part)
                else:
                    np.save(part, values)
            for part in pathlib.Path(temporary).iterdir():
                part.replace(folder / part.name)
    except ImportError as error:
        raise UserError(f"{folder}: pyarrow is not installed; pip install 'mmvm_jax[tables]'") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); use another path") from error


def _read_arrays(path: pathlib.Path):
    """Return a .npy file, or all of a folder; those with one axis, such as labels, are read at once."""
    parts = sorted(path.glob("*.npy"), key=lambda one: natural_key(one.name))
    array = NpyFiles(parts if path.is_dir() else [path])
    return array if len(array.shape) > 1 else array[:]


def _read_csv(path: pathlib.Path):
    """Read a table separated by commas, or by semicolons or tabs if its heading has more of them."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            heading, first = file.readline(), file.readline()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    separator = separator_of(heading)
    decimal = "," if separator != "," and "," in first else "."
    frame = _call("pandas", "read_csv", path, sep=separator, decimal=decimal, encoding="utf-8-sig")
    name = str(frame.columns[0])
    if name.startswith("Unnamed: 0"):
        return frame.set_index(frame.columns[0]).rename_axis(None)
    if len(frame.columns) > 1 and is_name_of_ids(name) and frame[frame.columns[0]].is_unique:
        log.info("%s: its column '%s' is the index", path, name)
        return frame.set_index(frame.columns[0])
    return frame


def _read_zarr(path: pathlib.Path):
    package = "mudata" if (path / "mod").exists() else "anndata"
    return _call(package, "read_zarr", path)


def _call(package: str, function: str, path: pathlib.Path, **options):
    """Read a file with a function of a package that not everyone has."""
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        extra = "tables" if package == "pandas" else "cells"
        raise UserError(f"{path}: {package} is not installed; pip install 'mmvm_jax[{extra}]'") from error
    try:
        return getattr(module, function)(path, **options)
    except Exception as error:  # of many kinds, of several packages
        raise UserError(f"{path} cannot be read by {package}.{function} ({first_line(error)})") from error


def _reader(package: str, function: str) -> Callable:
    return lambda path: _call(package, function, path)


_TABLES = {
    ".npy": _read_arrays,
    ".parquet": _reader("pandas", "read_parquet"),
    ".csv": _read_csv,
}
_READERS = {
    ".h5mu": _reader("mudata", "read_h5mu"),
    ".h5ad": _reader("anndata", "read_h5ad"),
    ".zarr": _read_zarr,
}
