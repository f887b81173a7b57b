"""Outputs in the form of the user's tables: DataFrames with their index, columns, types and categories."""

from collections.abc import Mapping

import numpy as np

from mmvm_jax.data.alignment import labels_of
from mmvm_jax.data.columns import Levels, category_name, names_of

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
      ``<name>`` and ``<name>__std`` as DataFrames like the one given, or, where there is none, with the columns of
      training; and latents ``<name>__mean`` and ``<name>__log_variance`` as DataFrames if the tables have an index.
      Other arrays are unchanged. Nothing changes if no DataFrame was given.
    """
    tables = {name: values for name, values in data.items() if names_of(values) and name in columns}
    if not tables:
        return outputs
    labels, any_table = labels_of(data), next(iter(tables.values()))

    def framed(name: str, array: np.ndarray):
        table = name.removesuffix("__std")
        if name.endswith(_LATENTS) and labels is not None:
            return _frame(any_table, dict(enumerate(array.T)), labels)
        if array.shape[1:] != (len(columns.get(table, ())),) or (data.get(table) is not None and table not in tables):
            return array  # no table, or given as an array
        by_name = dict(zip(columns[table], array.T, strict=True))
        theirs = levels.get(table, {}) if name == table else {}
        if table in tables:
            return _like(tables[table], by_name, theirs, labels, with_types=name == table)
        return _frame(any_table, by_name | _all_texts(by_name, theirs), labels)

    return {name: framed(name, array) for name, array in outputs.items()}


def _like(given, by_name: dict[str, np.ndarray], levels: Levels, labels, with_types: bool):
    """Return a DataFrame with the columns of ``given`` in their order, and with their types if asked for."""
    kept = [name for name in given.columns if str(name) in by_name]
    arrays = {name: by_name[str(name)] for name in kept}
    arrays |= _all_texts(arrays, levels)
    frame = _frame(given, arrays, labels)
    if with_types and hasattr(frame, "iloc"):
        for name in kept:
            frame[name] = _typed(frame[name], given[name], is_text=str(name) in levels)
    return frame


def _all_texts(arrays: Mapping, levels: Levels) -> dict:
    """Return the columns that hold text."""
    return {name: _texts(codes, levels[str(name)]) for name, codes in arrays.items() if str(name) in levels}


def _texts(codes: np.ndarray, levels: tuple[str, ...]) -> np.ndarray:
    """Return the categories with these numbers, None for NaN."""
    known = np.array([*levels, None], object)
    return known[np.where(np.isnan(codes), len(levels), np.rint(np.nan_to_num(codes))).astype(int)]


def _typed(column, given, is_text: bool):
    """Return a column of pandas in the type of the given one: integers rounded, categories as they were."""
    dtype, kind = given.dtype, str(given.dtype).lower()
    if hasattr(dtype, "categories"):
        names = {category_name(category): category for category in dtype.categories}
        missing = [text for text in column.dropna().unique() if text not in names]
        wider = type(dtype)([*dtype.categories, *missing], ordered=dtype.ordered)
        return column.map(lambda text: names.get(text, text)).astype(wider)
    if is_text:
        return column.astype(dtype) if kind.startswith("str") else column
    if kind == "object":
        known = given.dropna()
        is_flag = len(known) and all(isinstance(value, (bool, np.bool_)) for value in known)
        return column.round().astype(bool).astype(object) if is_flag else column
    if kind.startswith(("int", "uint")):
        bounds = np.iinfo(kind.split("[")[0])  # also of int64[pyarrow]
        return column.round().clip(bounds.min, bounds.max).astype(dtype)
    return column.round().astype(dtype) if kind.startswith("bool") else column.astype(dtype)


def _frame(given, columns: dict, labels: list | None):
    """Return a DataFrame of the same library as ``given``."""
    if not hasattr(given, "iloc"):  # polars, whose names of columns are text, and which has no index
        return type(given)({str(name): column for name, column in columns.items()})
    keeps_index = labels is None or list(given.index) == labels
    frame = type(given)(columns, index=given.index if keeps_index else labels)
    return frame if keeps_index else frame.rename_axis(index=given.index.name)
