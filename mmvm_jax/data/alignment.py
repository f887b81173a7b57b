"""Alignment of tables by the labels of their indexes."""

from collections.abc import Mapping

import numpy as np

from mmvm_jax.data.arrays import MASK, RESERVED
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import log


def align(data: Mapping, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with their rows in one order, given the tables that they were made of.

    Nothing changes if all indexes are equal, or if no label occurs in two tables. Row numbers are labels if another
    index has some of them, too.

    Args:
      data: the tables by name. Those without an index are paired by position.
      arrays: their contents, and masks ``<name>__present``.

    Raises:
      UserError: an index has a label twice, or there are arrays without an index among tables in different orders.
    """
    indexes = _indexes({name: data[name] for name in arrays if name in data})
    union = _union(indexes)
    if len({tuple(labels) for labels in indexes.values()}) < 2:
        return arrays
    if len(union) == sum(map(len, indexes.values())):
        log.warning(
            "the indexes of the tables %s share no label; their rows are paired by position", ", ".join(indexes)
        )
        return arrays
    _check(indexes, arrays)
    aligned = {}
    for name, labels in indexes.items():
        place = {label: row for row, label in enumerate(labels)}
        has_row, rows = np.array([label in place for label in union]), [place.get(label, 0) for label in union]
        values = arrays[name][rows]
        if name.endswith(MASK):
            aligned[name] = np.where(has_row, values, np.zeros_like(values))
        elif name in RESERVED:
            aligned[name] = _without_unknown(name, values, has_row)
        else:
            aligned[name] = values
            own_mask = arrays.get(f"{name}{MASK}", np.ones(len(labels), bool))
            if f"{name}{MASK}" not in indexes and not (has_row.all() and own_mask.all()):
                aligned[f"{name}{MASK}"] = np.where(has_row, own_mask[rows], np.zeros_like(own_mask[rows]))
    lacking = ", ".join(f"{len(union) - len(labels)} lack '{name}'" for name, labels in indexes.items())
    log.info("tables are aligned by their indexes: %d examples, of which %s", len(union), lacking)
    return aligned


def labels_of(data: Mapping) -> list | None:
    """Return the labels of the examples, in the order of the aligned arrays; None if no table has an index."""
    indexes = _indexes(data)
    union, lists = _union(indexes), list(indexes.values())
    if not lists or all(labels == lists[0] for labels in lists) or len(union) == sum(map(len, lists)):
        return lists[0] if lists else None
    return union


def _union(indexes: Mapping[str, list]) -> list:
    return list(dict.fromkeys(label for labels in indexes.values() for label in labels))


def _indexes(data: Mapping) -> dict[str, list]:
    """Return the labels of all tables that have an index, but row numbers only if another index has some of them."""
    found = {name: values.index for name, values in data.items() if not callable(getattr(values, "index", print))}
    labels = {name: list(index) for name, index in found.items() if index is not None}
    is_numbers = {name: type(found[name]).__name__ == "RangeIndex" for name in labels}

    def shares(name):
        mine = set(labels[name])
        return any(one != labels[name] and not mine.isdisjoint(one) for one in labels.values())

    return {name: labels[name] for name in labels if not is_numbers[name] or shares(name)}


def _check(indexes: dict[str, list], arrays: dict[str, np.ndarray]) -> None:
    for name, labels in indexes.items():
        if len(set(labels)) < len(labels):
            repeated = next(label for label in labels if labels.count(label) > 1)
            raise UserError(f"the index of table '{name}' has {repeated!r} twice; allowed: each label once")
    for name, array in arrays.items():
        labels = indexes.get(name, indexes.get(name.removesuffix(MASK)))
        if labels is not None and len(array) != len(labels):
            raise UserError(f"'{name}' has {len(array)} entries; allowed: {len(labels)}, one per row of its table")
        if labels is None:
            raise UserError(
                f"'{name}' has no index, but the tables {', '.join(indexes)} have different ones; allowed: tables with "
                "indexes only, or arrays only, as by .to_numpy(), whose rows are paired by position"
            )


def _without_unknown(name: str, values: np.ndarray, has_row: np.ndarray) -> np.ndarray:
    """Return the labels, marked as unknown for examples without a row."""
    if has_row.all():
        return values
    if name != "labels":
        raise UserError(f"the index of '{name}' lacks {np.sum(~has_row)} examples; allowed: all of them")
    values = values.astype(object if values.dtype.kind not in "iuf" else values.dtype)
    values[~has_row] = None if values.dtype.kind == "O" else -1
    return values
