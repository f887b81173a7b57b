"""Real-valued data in units of their spread over the training examples, and how to undo that."""

import numpy as np

from mmvm_jax.data.pipeline import Split


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


def _apply(split: Split, units, rows) -> Split:
    inputs = dict(split.inputs)
    for name, (mean, scale) in units.items():
        scaled = (inputs[name].astype(np.float32) - mean) / scale
        absent = ~split.present[rows[name]]
        scaled[absent] = 0  # whatever stood there
        inputs[name] = scaled
    return split._replace(inputs=inputs)
