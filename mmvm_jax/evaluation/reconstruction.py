"""Reconstruction: each modality decoded from everything observed, compared with what it was."""

import numpy as np

from mmvm_jax.evaluation.translation import Translations


def reconstruction(names: tuple[str, ...], translations: Translations) -> dict[str, float]:
    """Log-likelihood (nats an example) and mean squared error per modality."""
    row = translations.sources.index("all")
    values = {}
    for quantity, table in _quantities(translations).items():
        means = np.nanmean(table[row], axis=-1)
        values |= {f"reconstruction/{quantity}/{name}": float(mean) for name, mean in zip(names, means)}
    return values


def imputation(names: tuple[str, ...], translations: Translations) -> dict[str, float]:
    """The same for each modality from each other one, and from all others."""
    values = {}
    for quantity, table in _quantities(translations).items():
        means = dict(zip(translations.sources, np.nanmean(table, axis=-1)))
        for column, target in enumerate(names):
            prefix = f"imputation/{quantity}/"
            others = [source for source in names if source != target]
            values |= {f"{prefix}{source}_to_{target}": float(means[source][column]) for source in others}
            values[f"{prefix}others_to_{target}"] = float(means[f"others_{target}"][column])
    return values


def _quantities(translations: Translations) -> dict[str, np.ndarray]:
    return {"log_likelihood": translations.log_likelihood, "mse": translations.squared_error}
