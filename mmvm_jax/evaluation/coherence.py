"""Coherence: how often a classifier finds the true label in generated examples.

For classes it is the accuracy on generated examples; for binary labels, the average precision of the classifier's
probabilities, averaged over the labels. The score of the same classifier on real examples is an upper limit.
"""

import numpy as np
from sklearn.metrics import average_precision_score

from mmvm_jax.evaluation.means import mean_of_known, without_unknown
from mmvm_jax.evaluation.translation import Translations


def coherence(
    names: tuple[str, ...], translations: Translations, present: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return coherence from each modality to each, leave-one-out coherence, and the classifiers' own scores.

    Args:
      names: names of the modalities.
      translations: translations of the test split, with predictions.
      present: [M, N] bool.
      labels: [N] classes, or [N, C] binary; -1 where unknown.
    """

    assert translations.real_predictions is not None

    def generated(source, target):
        row, column = translations.sources.index(source), names.index(target)
        known = translations.known[row]
        return label_score(translations.predictions[row, column, known], labels[known])

    pairs = {(source, target): generated(source, target) for source in names for target in names}
    values = {f"coherence/{source}_to_{target}": value for (source, target), value in pairs.items()}
    values["coherence/cross_mean"] = mean_of_known([value for (s, t), value in pairs.items() if s != t])
    if len(names) > 1:
        left_out = [generated(f"others_{target}", target) for target in names]
        values["coherence/leave_one_out_mean"] = mean_of_known(left_out)
    prefix = f"coherence/classifier_{'accuracy' if labels.ndim == 1 else 'average_precision'}"
    real = [label_score(row[shown], labels[shown]) for row, shown in zip(translations.real_predictions, present)]
    values |= {f"{prefix}/{name}": value for name, value in zip((*names, "mean"), (*real, mean_of_known(real)))}
    return without_unknown(values)


def label_score(predictions: np.ndarray, labels: np.ndarray) -> float | None:
    """Score predictions against labels.

    Args:
      predictions: [N] classes, or [N, C] probabilities of binary labels.
      labels: [N] classes, or [N, C] binary labels; -1 where unknown.

    Returns:
      The accuracy; for binary labels the average precision, averaged over the labels that have both values.
      None if nothing can be compared.
    """
    if labels.ndim == 1:
        return mean_of_known((predictions == labels)[labels >= 0])
    scores = []
    for probabilities, column in zip(predictions.T, labels.T):
        known = column >= 0
        if len(np.unique(column[known])) > 1:
            scores.append(average_precision_score(column[known], probabilities[known]))
    return mean_of_known(scores)
