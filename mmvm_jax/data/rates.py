"""Mean counts of the training examples, at which the decoders of counts start."""

import dataclasses

import numpy as np

from mmvm_jax.data.arrays import MASK
from mmvm_jax.data.batches import some_rows
from mmvm_jax.data.dataset import Split, blocks
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Modality

_FAR_COUNTS = 10  # a count beyond this multiple of the 99.9 % quantile is ignored in the mean rate
_TYPICAL = 10_000  # examples from which the quantile is taken


def with_rates(modality: Modality, train: Split, row: int) -> Modality:
    """Return the modality with the mean training counts as the initial rates of its decoder, if it is of counts.

    Counts far beyond all others, such as codes or errors, are limited in these means.
    """
    if modality.likelihood not in ("poisson", "negative_binomial"):
        return modality
    counts, present = train.inputs[modality.name], train.present[row]
    limit = _FAR_COUNTS * _typical_maximum(np.asarray(counts[some_rows(len(present), _TYPICAL)]))
    total, known, highest = np.zeros(modality.shape), np.zeros(modality.shape), 0.0
    for block in blocks(counts, present):
        highest = max(highest, float(np.nanmax(block, initial=0)))
        total += np.nansum(np.minimum(block, limit), axis=0, dtype=np.float64)
        known += (~np.isnan(block)).sum(axis=0)
    if highest > limit:
        name = modality.name
        log.warning("array '%s' has counts up to %d; if they are errors, mark them in '%s'", name, highest, name + MASK)
    rates = (total + 0.5) / (known + 1.0)
    scale = float(total.sum() / max(known.sum(), 1)) or 1.0
    return dataclasses.replace(modality, scale=scale, rates=tuple(rates.ravel().tolist()))


def overdispersion(means: np.ndarray, scales: np.ndarray) -> float:
    """Return the median over entries of the variance of counts divided by their mean, given ``units.measure``."""
    ratios = np.square(scales[means > 0]) / means[means > 0]
    return float(np.median(ratios)) if ratios.size else 0.0


def _typical_maximum(counts: np.ndarray) -> float:
    """Return the largest count after removing the top thousandth of the non-zero counts."""
    some = np.sort(counts[counts > 0], axis=None)
    return float(some[-1 - -(-len(some) // 1000)]) if len(some) > 1 else np.inf
