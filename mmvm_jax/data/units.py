"""Real-valued data in units of their spread over the training examples, and how to undo that."""

import numpy as np

from mmvm_jax.data.arrays import MASK
from mmvm_jax.data.dataset import Split
from mmvm_jax.runtime.progress import log

_FAR = 100  # standard deviations of the training data; rare events lie some tens away


def standardise(train: Split, test: Split, rows: dict[str, int]):
    """Gives every entry of the named modalities mean 0 and standard deviation 1 over the training examples.

    Only examples that have the modality count.

    Args:
      train, test: splits, left as they are.
      rows: ``{modality name: its row in present}``.

    Returns:
      the new splits, and ``{name: (mean [...], scale [...])}`` float32: original = x * scale + mean.
    """
    units = {}
    for name, row in rows.items():
        values = train.inputs[name][train.present[row]].astype(np.float64)
        mean, scale = values.mean(axis=0), values.std(axis=0)
        # What never varies keeps its unit.
        units[name] = mean.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32)
    return _apply(train, units, rows), _apply(test, units, rows), units


def warn_of_codes(name: str, values: np.ndarray, start: int = 0) -> bool:
    """Says so if standardised values [n, ...] are unlike the training data; ``start`` is the first one's number."""
    far = (np.abs(values) > _FAR).any(axis=tuple(range(1, values.ndim)))
    if far.any():
        log.warning(
            "array '%s' has values of more than %d standard deviations of the training data, the first in example %d "
            "of these; if they are codes for what is missing, mark them in '%s'",
            name,
            _FAR,
            start + far.argmax(),
            name + MASK,
        )
    return bool(far.any())


def _apply(split: Split, units, rows) -> Split:
    inputs = dict(split.inputs)
    for name, (mean, scale) in units.items():
        scaled = (inputs[name].astype(np.float32) - mean) / scale
        absent = ~split.present[rows[name]]
        scaled[absent] = 0  # whatever stood there
        inputs[name] = scaled
    return split._replace(inputs=inputs)
