"""Outputs in the form of the user's tables: DataFrames with their index, columns, types and categories."""

from collections.abc import Mapping

import numpy as np

from mmvm_jax.data.alignment import labels_of
from mmvm_jax.data.columns import Levels, names_of

_LATENTS = ("__mean", "__log_variance")


def as_frames(
    data: Mapping, outputs: dict[str, np.ndarray], columns: Mapping[str, tuple[str, ...]], levels: Mapping[str, Levels]
) -> dict:
    """Return the outputs with tables in place of arrays wherever the user gave DataFrames.

    Args:
      data: as given by the user.
      outputs: {name, or name__quantity: [N, ...]}.
      columns: {name: names of the columns of the array, in its order}.
      levels: {name: levels of its columns of text}.

    Returns:
      ``<name>`` and ``<name>__std`` as DataFrames like the one given, and latents ``<name>__mean`` and
      ``<name>__log_variance`` as DataFrames if the tables have an index. Other arrays are unchanged.
    """
    tables = {name: values for name, values in data.items() if names_of(values) and name in columns}
    if not tables:
        return outputs
    first, index, framed = next(iter(tables.values())), labels_of(data), {}
    for name, array in outputs.items():
        table = name.removesuffix("__std")
        if table in tables and array.shape[1:] == (len(columns[table]),):
            framed[name] = _like(tables[table], array, columns[table], levels.get(table, {}), index, name == table)
        elif name.endswith(_LATENTS) and index is not None:
            framed[name] = _frame(first, dict(enumerate(array.T)), index)
        else:
            framed[name] = array
    return framed


def _like(given, array: np.ndarray, names: tuple[str, ...], levels: Levels, index, with_types: bool):
    """Return a DataFrame of ``array``, with the columns of ``given`` in their order, and their types if asked for."""
    by_name = {name: column for name, column in zip(names, array.T, strict=True) if name in names_of(given)}
    order = [name for name in names_of(given) if name in by_name]
    if not with_types:
        return _frame(given, {name: by_name[name] for name in order}, index)
    for name in levels.keys() & by_name.keys():
        codes = by_name[name]
        known = np.array([*levels[name], None], object)
        by_name[name] = known[np.where(np.isnan(codes), len(levels[name]), np.rint(codes)).astype(int)]
    frame = _frame(given, {name: by_name[name] for name in order}, index)
    if not hasattr(given, "iloc"):
        return frame
    types = {str(name): dtype for name, dtype in given.dtypes.items()}
    whole = lambda name: frame[name].round() if str(types[name]).lower().startswith(("int", "uint")) else frame[name]
    for name in order:
        if name not in levels and not str(types[name]).lower().startswith(("bool", "object")):
            frame[name] = whole(name).astype(types[name])
        elif str(types[name]).lower().startswith(("categ", "str")):
            frame[name] = frame[name].astype(types[name])
    return frame


def _frame(given, columns: dict, index):
    """Return a DataFrame of the same library as ``given``."""
    if hasattr(given, "iloc"):
        return type(given)(columns, index=given.index if index is None else index)
    return type(given)({str(name): column for name, column in columns.items()})  # polars, without an index
