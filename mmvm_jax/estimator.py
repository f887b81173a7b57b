"""A scikit-learn estimator, for pipelines, cross-validation and searches over parameters."""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from mmvm_jax import api
from mmvm_jax.objectives.method import choose
from mmvm_jax.runtime import devices

_TABLE = "table"  # name of the only modality


class MultimodalVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A multimodal variational autoencoder whose modalities are groups of the columns of one table.

    ``transform`` returns latents, ``impute`` the table with its gaps filled in, and ``inverse_transform`` tables given
    latents. Missing entries are NaN. DataFrames may have columns of counts and text, as described in
    ``mmvm_jax.data.own_data``. All rows count, also those with equal labels in an index.

    Args:
      modalities: {name of the modality: its columns, by name or number}; None for one modality of all columns.
      method: as in a sweep, such as "mmvm", "poe" or "mmvae_plus".
      beta: factor of the divergence.
      latent_dim: D.
      epochs: of training.
      config: all other settings; None for ``mmvm_jax.default_config()``.
      random_state: seed, an integer; None for 0.

    Attributes:
      model_: the ``mmvm_jax.api.FittedModel``.
      n_features_in_: number of columns.
      feature_names_in_: names of the columns of a DataFrame.
    """

    def __init__(
        self,
        modalities: Mapping[str, Sequence] | None = None,
        *,
        method: str = "mmvm",
        beta: float = 0.25,
        latent_dim: int = 32,
        epochs: float = 100.0,
        config: ConfigDict | None = None,
        random_state: int = 0,
    ):
        self.modalities = modalities
        self.method = method
        self.beta = beta
        self.latent_dim = latent_dim
        self.epochs = epochs
        self.config = config
        self.random_state = random_state

    def fit(self, X, y=None):  # noqa: N803, the name is scikit-learn's
        """Train on all rows of a table [N, C]; y is ignored."""
        X = self._checked(X, reset=True)  # noqa: N806
        config = api.default_config() if self.config is None else self.config.copy_and_resolve_references()
        choose(config.method, self.method)
        config.method.beta, config.seed = float(self.beta), int(self.random_state or 0)
        config.network.latent_dim, config.train.epochs = int(self.latent_dim), float(self.epochs)
        config.train.batch_size = devices.largest_batch_size(config.train.batch_size, len(X))
        config.data.missing_entries = True  # a later table may have gaps that this one lacks
        # The test split, which must not be empty, is a copy of the first row.
        rows = np.append(np.arange(len(X)), 0)
        data = self._modalities(X.iloc[rows] if hasattr(X, "iloc") else X[rows])
        self.model_ = api.fit(data | {"split": np.arange(len(rows)) == len(X)}, config)
        self._n_features_out = self.latent_dim
        return self

    def transform(self, X) -> np.ndarray:  # noqa: N803
        """Return the means of the latents given each row: [N, D] float32. They are 0 given nothing."""
        model = self._fitted()
        latents = model.encode(self._modalities(self._checked(X, reset=False)))
        return np.nan_to_num(np.asarray(latents["joint__mean"]))

    def impute(self, X, num_samples: int = 20):  # noqa: N803
        """Return the table with its missing entries filled in."""
        model, X = self._fitted(), self._checked(X, reset=False)  # noqa: N806
        filled, whole = model.impute(self._modalities(X), num_samples), X.copy()
        for name, columns in self._columns(X).items():
            if hasattr(X, "iloc"):
                whole[columns] = filled[name].set_axis(X.index)
            else:
                whole[:, columns] = filled[name]
        return whole

    def inverse_transform(self, X):  # noqa: N803
        """Return the expected table given latents [N, D]: [N, C]."""
        decoded = self._fitted().decode(np.asarray(X, np.float32))
        parts = [decoded[name] for name in self._groups()]
        columns = [place for group in self._groups().values() for place in group]
        return np.concatenate(parts, axis=1)[:, np.argsort(columns)]

    def __sklearn_tags__(self):
        """Say that missing entries are allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _fitted(self) -> api.FittedModel:
        check_is_fitted(self, "model_")
        return self.model_

    def _checked(self, X, reset: bool):  # noqa: N803
        if hasattr(X, "iloc"):  # pandas; other tables are read as numbers
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(
            self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan", ensure_min_samples=2 if reset else 1
        )

    def _modalities(self, X) -> dict:  # noqa: N803
        columns = self._columns(X)
        pick = lambda places: X[places].reset_index(drop=True) if hasattr(X, "iloc") else X[:, places]
        return {name: pick(places) for name, places in columns.items()}

    def _columns(self, X) -> dict[str, list]:  # noqa: N803
        """Return the columns of each modality: their names in a DataFrame, else their numbers."""
        names = list(X.columns) if hasattr(X, "iloc") else None
        return {
            name: [names[place] for place in places] if names else places for name, places in self._groups().items()
        }

    def _groups(self) -> dict[str, list[int]]:
        """Return the numbers of the columns of each modality."""
        if self.modalities is None:
            return {_TABLE: list(range(self.n_features_in_))}
        known = {place: place for place in range(self.n_features_in_)}
        known |= {name: place for place, name in enumerate(getattr(self, "feature_names_in_", ()))}
        for name, columns in self.modalities.items():
            if wrong := [one for one in columns if one not in known]:
                allowed = ", ".join(map(str, known))
                raise ValueError(f"modalities[{name!r}] has the column {wrong[0]!r}; allowed: {allowed}")
        return {name: [known[one] for one in columns] for name, columns in self.modalities.items()}
