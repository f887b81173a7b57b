"""Coherence: the share of generated examples that the target's classifier gives the true label.

It means nothing above the classifier's own accuracy, which therefore stands beside it.
"""

import numpy as np

from mmvm_jax.evaluation.translation import Translations


def coherence(names: tuple[str, ...], translations: Translations) -> dict[str, float]:
    """Pairwise, leave-one-out and classifier accuracy, and their means."""
    table = dict(zip(translations.sources, np.nanmean(translations.correct, axis=-1)))
    pairs = {(s, t): float(table[s][row]) for s in names for row, t in enumerate(names)}
    values = {f"coherence/{s}_to_{t}": value for (s, t), value in pairs.items()}
    crossed = [value for (s, t), value in pairs.items() if s != t]
    left_out = [float(table[f"others_{t}"][row]) for row, t in enumerate(names)]
    accuracy = np.nanmean(translations.classifier_correct, axis=-1)
    values |= {f"coherence/classifier_accuracy/{t}": float(a) for t, a in zip(names, accuracy)}
    values["coherence/classifier_accuracy/mean"] = float(np.mean(accuracy))
    if crossed:
        values["coherence/cross_mean"] = float(np.mean(crossed))
        values["coherence/leave_one_out_mean"] = float(np.mean(left_out))
    return values
