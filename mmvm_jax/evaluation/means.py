"""Means of known values: ``evaluation.json`` leaves out values that could not be computed instead of writing NaN."""

import numpy as np


def mean_of_known(values) -> float | None:
    """Return the mean of the entries that are neither None nor NaN; None if there are none."""
    values = np.asarray([] if values is None else values, float)
    values = values[~np.isnan(values)]
    return float(np.mean(values)) if values.size else None


def without_unknown(values: dict[str, float | None]) -> dict[str, float]:
    """Return the entries that are not None."""
    return {name: value for name, value in values.items() if value is not None}
