"""Means of what is known: ``evaluation.json`` leaves out what nobody measured instead of calling it NaN."""

import numpy as np


def mean_of_known(values) -> float | None:
    """The mean of the entries that are neither None nor NaN; None if there are none."""
    values = np.asarray([] if values is None else values, float)
    values = values[~np.isnan(values)]
    return float(np.mean(values)) if values.size else None


def without_unknown(values: dict[str, float | None]) -> dict[str, float]:
    """The entries that are not None."""
    return {name: value for name, value in values.items() if value is not None}
