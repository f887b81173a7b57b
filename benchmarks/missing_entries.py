"""Single entries imputed by one line of code, against the imputers of scikit-learn.

    python -m benchmarks.missing_entries --data=patients,breast_cancer,diabetes --rates=0.1,0.3,0.6

Removes entries at random from tables, and prints the squared error of what is imputed, in units of the columns'
variances (so that the mean has 1), and the share of removed entries inside the intervals of 90 % of
``mmvm_jax.fit(tables).impute(tables)``. The data: 1,500 simulated patients with 40 laboratory values and 30 medications
that share four factors, scikit-learn's breast cancer and diabetes, and four of the feature sets of UCI Multiple
Features. Only real numbers are compared. The other imputers read all tables as one, and all examples.
"""

import time

import numpy as np
from absl import app, flags
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

import mmvm_jax

_DATA = flags.DEFINE_list("data", ["patients", "breast_cancer", "diabetes", "uci"], "Data sets.")
_RATES = flags.DEFINE_list("rates", ["0.1", "0.3", "0.6"], "Shares of the entries that are removed.")
_UCI_SETS = ("fou", "kar", "zer", "mor")
_WIDE = 60  # columns, above which IterativeImputer regresses on 30 random ones; otherwise it takes hours


def patients() -> dict[str, np.ndarray]:
    """Laboratory values and medications of four common factors, with noise."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(1500, 4))
    values = factors @ rng.normal(size=(4, 40)) / 2 + 0.6 * rng.normal(size=(1500, 40))
    chances = 1.0 / (1.0 + np.exp(-(factors @ rng.normal(0, 1.5, (4, 30)) + rng.normal(-1, 0.7, 30))))
    return {"values": values, "medications": (rng.random((1500, 30)) < chances).astype(float)}


def uci() -> dict[str, np.ndarray]:
    """Four feature sets of the same 2,000 digits, from the prepared data set."""
    config = mmvm_jax.default_config().data
    config.name = "uci_multiple_features"
    from mmvm_jax.data import load_dataset

    data = load_dataset(config)
    names = [modality.name for modality in data.modalities if modality.name.endswith(_UCI_SETS)]
    return {name: np.concatenate([data.train.inputs[name], data.test.inputs[name]]).astype(float) for name in names}


TABLES = {
    "patients": patients,
    "breast_cancer": lambda: {"cells": load_breast_cancer().data},
    "diabetes": lambda: {"patients": load_diabetes(scaled=False).data},
    "uci": uci,
}


def main(argv):
    del argv
    print(f"{'data':14} {'rate':>5} {'imputer':18} {'error':>6} {'in 90 %':>8} {'seconds':>8}")
    for name in _DATA.value:
        for rate in map(float, _RATES.value):
            compare(name, TABLES[name](), rate)


def compare(name: str, tables: dict[str, np.ndarray], rate: float) -> None:
    """Print one line per imputer."""
    rng = np.random.default_rng(1)
    whole = {key: (table - table.mean(axis=0)) / table.std(axis=0) for key, table in tables.items()}
    is_real = np.concatenate([np.full(t.shape[1], len(np.unique(t)) > 2) for t in tables.values()])
    hole = {key: rng.random(table.shape) < rate for key, table in tables.items()}
    for holes in hole.values():
        holes[holes.all(axis=1), 0] = False  # of nothing, nothing can be said
    holed = {key: np.where(hole[key], np.nan, tables[key]) for key in tables}
    truth, holes = (np.concatenate(list(part.values()), axis=1) for part in (whole, hole))
    joined = np.where(holes, np.nan, truth)
    scored = holes & is_real
    wide = {"n_nearest_features": 30} if truth.shape[1] > _WIDE else {}
    imputers = {"10 nearest": KNNImputer(n_neighbors=10), "IterativeImputer": IterativeImputer(**wide)}
    for label, imputer in imputers.items():
        begun = time.monotonic()
        error = np.square(imputer.fit_transform(joined) - truth)[scored].mean()
        print(f"{name:14} {rate:5} {label:18} {error:6.3f} {'':8} {time.monotonic() - begun:8.0f}", flush=True)
    begun = time.monotonic()
    outputs = mmvm_jax.fit(holed).impute(holed)
    seconds = time.monotonic() - begun
    scaled = lambda key, ending, mean: (
        (outputs[key + ending] - mean * tables[key].mean(axis=0)) / tables[key].std(axis=0)
    )
    means = np.concatenate([scaled(key, "", 1) for key in tables], axis=1)
    stds = np.concatenate([scaled(key, "__std", 0) for key in tables], axis=1)
    error, inside = np.square(means - truth)[scored].mean(), (np.abs(means - truth) < 1.645 * stds)[scored].mean()
    print(f"{name:14} {rate:5} {'mmvm_jax':18} {error:6.3f} {100 * inside:7.0f}% {seconds:8.0f}", flush=True)


if __name__ == "__main__":
    app.run(main)
