"""Columns of tables: text as categories, and the likelihood of each column."""

from collections.abc import Sequence

import numpy as np

from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Column

Levels = dict[str, tuple[str, ...]]  # {column: its categories in the order of their numbers}
_MOST_LEVELS = 64
_CATEGORIES = ("categ", "enum")  # how the types of categories begin in pandas and polars
_LARGEST_MEAN_COUNT = 3
_SHARE_OF_ZEROS = 0.05
_SHARE_OF_HIGHEST = 0.002


def names_of(values) -> tuple[str, ...]:
    """Return the names of the columns of a DataFrame; empty for anything else."""
    columns = getattr(values, "columns", None)
    return () if columns is None or callable(columns) else tuple(map(str, columns))


def has_text(name: str, values) -> bool:
    """Return whether a DataFrame has columns of text or categories.

    Raises:
      UserError: two columns have the same name.
    """
    names = names_of(values)
    if len(set(names)) < len(names):
        repeated = next(one for one in names if names.count(one) > 1)
        raise UserError(f"table '{name}' has two columns '{repeated}'; allowed: each name once")
    return bool(names) and any(_is_text(column) for column in _columns(values))


def as_numbers(name: str, values, trained: Levels) -> tuple[np.ndarray, Levels]:
    """Convert a DataFrame to numbers, with missing entries as NaN and categories as their numbers.

    Args:
      name: of the table.
      values: a DataFrame [N, C].
      trained: levels of the training data, which are used instead of new ones; their columns may hold numbers, too.

    Returns:
      [N, C] float64, and the levels of the columns that hold text or categories.

    Raises:
      UserError: a column has too many categories, or some that training did not have.
    """
    arrays, levels = [], {}
    for column, series in zip(names_of(values), _columns(values), strict=True):
        entries = _entries(series)
        missing = np.array([is_missing(entry) for entry in entries], bool)
        if not _is_text(series) and column not in trained:
            arrays.append(_real(name, column, entries, missing))
            continue
        texts = np.array(["" if gap else category_name(entry) for entry, gap in zip(entries, missing, strict=True)])
        found = tuple(np.unique(texts[~missing]).tolist())
        if column not in trained:
            _check_number(name, column, found, len(entries))
        elif new := [level for level in found if level not in trained[column]]:
            allowed = ", ".join(trained[column])
            raise UserError(f"column '{column}' of table '{name}' has {new[0]!r}; allowed: {allowed}, as in training")
        levels[column] = trained.get(column, found)
        numbers = {level: float(number) for number, level in enumerate(levels[column])}
        arrays.append(np.array([np.nan if gap else numbers[text] for text, gap in zip(texts, missing, strict=True)]))
    return np.stack(arrays, axis=1), levels


def select(values, names: Sequence[str]):
    """Return a DataFrame without the columns that are not among ``names``, or ``values`` if it is none."""
    given = names_of(values)
    kept = [column for column, name in zip(getattr(values, "columns", ()), given) if name in names]
    return values[kept] if given and len(kept) < len(given) and hasattr(values, "shape") else values


def is_missing(value) -> bool:
    """Return whether a Python object is None, NaN or pandas' NA or NaT."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def _columns(values) -> list:
    if hasattr(values, "get_columns"):  # polars
        return values.get_columns()
    if hasattr(values, "iloc"):  # pandas
        return [values.iloc[:, place] for place in range(values.shape[1])]  # by place, as names may repeat
    return list(np.asarray(values).T)


def _is_text(series) -> bool:
    kind = str(series.dtype).lower()
    if kind.startswith(_CATEGORIES) or kind.startswith("str"):
        return True
    return kind == "object" and any(isinstance(value, str) for value in series)


def _real(name: str, column: str, entries: np.ndarray, missing: np.ndarray) -> np.ndarray:
    try:
        return np.where(missing, np.nan, entries).astype(np.float64)
    except (TypeError, ValueError) as error:
        example = entries[~missing][0]
        raise UserError(
            f"table '{name}' has values that are not numbers in column '{column}' ({example!r:.40}); allowed: numbers, "
            "or text with the names of categories; dates as numbers, such as days since a date"
        ) from error


def _entries(series) -> np.ndarray:
    """Return the entries of a column as Python objects, categories of pandas as they are in its type."""
    if hasattr(series.dtype, "categories") and hasattr(series, "cat"):
        known = np.empty(len(series.dtype.categories) + 1, object)
        known[:-1] = list(series.dtype.categories)
        return known[np.asarray(series.cat.codes)]  # -1 where missing
    return np.asarray(series, object)


def category_name(entry) -> str:
    """Return the name of a category. Integers that became real numbers, as beside NaN, keep their names."""
    return str(int(entry)) if isinstance(entry, (float, np.floating)) and entry == np.round(entry) else str(entry)


def _check_number(name: str, column: str, found: tuple[str, ...], length: int) -> None:
    if len(found) > min(_MOST_LEVELS, max(length // 2, 2)):
        raise UserError(
            f"column '{column}' of table '{name}' has {len(found)} different texts, such as {found[0]!r:.40}; allowed: "
            f"up to {_MOST_LEVELS} categories; leave the column out, or make it the index if it names the examples"
        )


def look_like_counts(mean: float, zeros: float, highest: float, size: int) -> bool:
    """Return whether non-negative integers are counts.

    Args:
      mean: of all values.
      zeros: share of zeros. Measurements, such as ages, are hardly ever exactly 0.
      highest: share of the highest value. It is high for scales with an end, such as pixels and ratings.
      size: number of values.
    """
    has_end = highest > max(_SHARE_OF_HIGHEST, 2 / size)
    return mean <= _LARGEST_MEAN_COUNT or (zeros >= _SHARE_OF_ZEROS and not has_end)


def infer(names: Sequence[str], array: np.ndarray, levels: Levels) -> tuple[Column, ...]:
    """Return the columns of a table, with the likelihood that fits each of them.

    Categories are "categorical", or "bernoulli" if there are two of them; other columns with the values 0 and 1 are
    "bernoulli", integers that look like counts "poisson", and all others "normal".

    Args:
      names: C of them.
      array: [N, C], the present training examples.
      levels: of the columns that have them.
    """
    return tuple(_infer_one(array[:, place], levels.get(name, ())) for place, name in enumerate(names))


def _infer_one(values: np.ndarray, levels: tuple[str, ...]) -> Column:
    if levels:
        return Column("bernoulli") if len(levels) <= 2 else Column("categorical", len(levels))
    values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if not values.size or values.min() < 0 or (values != np.round(values)).any():
        return Column("normal")
    if values.max() <= 1:
        return Column("bernoulli")
    zeros = (values == 0).any()  # codes of categories, such as 1 and 2, begin at 1
    is_count = zeros and look_like_counts(
        values.mean(), (values == 0).mean(), (values == values.max()).mean(), values.size
    )
    return Column("poisson", rate=float(values.mean())) if is_count else Column("normal")


def check_values(name: str, array: np.ndarray, columns: tuple[Column, ...], names: Sequence) -> None:
    """Raise UserError if known values of a table [n, C] do not fit its columns, which have the ``names``."""
    for place, column in enumerate(columns):
        largest = {"bernoulli": 1, "categorical": column.levels - 1, "poisson": 2**24}.get(column.likelihood)
        if largest is None:
            continue
        values = array[:, place][~np.isnan(array[:, place])]
        wrong = values[(values < 0) | (values > largest) | (values != np.round(values))]
        if wrong.size:
            raise UserError(
                f"column '{names[place]}' of table '{name}' has {wrong[0]:g}; allowed: integers from 0 to {largest}"
            )


def log_columns(name: str, names: Sequence[str], columns: tuple[Column, ...]) -> None:
    """Log what each column of a table was taken for."""
    for likelihood in dict.fromkeys(column.likelihood for column in columns):
        theirs = [one for one, column in zip(names, columns, strict=True) if column.likelihood == likelihood]
        shown = ", ".join(theirs[:8]) + (", ..." if len(theirs) > 8 else "")
        log.info("  table '%s': %d columns %s: %s", name, len(theirs), likelihood, shown)
    log.info("  (numbers that stand for categories: table['column'].astype('category'))")
