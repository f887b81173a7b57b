"""Reconstruction and imputation errors: each modality decoded from given modalities, compared with its data."""

import numpy as np

from mmvm_jax.evaluation.means import mean_of_known, without_unknown
from mmvm_jax.evaluation.translation import Translations


def reconstruction(names: tuple[str, ...], translations: Translations) -> dict[str, float]:
    """Return log-likelihood (nats per example) and mean squared error of each modality, given everything observed."""
    row, values = translations.sources.index("all"), {}
    for quantity, table in _quantities(translations).items():
        values |= {f"reconstruction/{quantity}/{name}": mean_of_known(v) for name, v in zip(names, table[row])}
    return without_unknown(values)


def imputation(names: tuple[str, ...], translations: Translations) -> dict[str, float]:
    """Return the same for each modality, given each other modality alone and given all others."""
    values = {}
    for quantity, table in _quantities(translations).items():
        rows = dict(zip(translations.sources, table))
        for column, target in enumerate(names):
            sources = {source: source for source in names if source != target}
            sources |= {"others": f"others_{target}"} if sources else {}
            for label, source in sources.items():
                values[f"imputation/{quantity}/{label}_to_{target}"] = mean_of_known(rows[source][column])
    return without_unknown(values)


def _quantities(translations: Translations) -> dict[str, np.ndarray]:
    return {"log_likelihood": translations.log_likelihood, "mse": translations.squared_error}
