"""Filling in missing views of UCI Multiple Features: MMVM against the mean and scikit-learn's IterativeImputer.

    python -m benchmarks.imputation --rates=0.3,0.6 --seeds=0

Every view of every digit goes missing with the given probability, in training and test; a digit keeps at least one.
All three learn from the training digits and fill in the test digits. Prints the mean squared error over the missing
entries, in units of each feature's standard deviation over the complete training digits, by view and over all
entries. Needs the files of the data set, as ``configs/uci_multiple_features.py`` does.
"""

import warnings

import numpy as np
from absl import flags
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401, makes the next import possible
from sklearn.impute import IterativeImputer

import mmvm_jax
from mmvm_jax.config import base
from mmvm_jax.data import load_dataset
from mmvm_jax.data.missing import draw_presence
from mmvm_jax.runtime import command_line

_DIR = flags.DEFINE_string("data_dir", "", "config.data.dir.")
_RATES = flags.DEFINE_list("rates", ["0.3", "0.6"], "Probabilities that a view is missing.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Of what goes missing, and of the training.")
_EPOCHS = flags.DEFINE_float("epochs", 100.0, "Of MMVM.")
_NEIGHBOURS = 50  # features that each regression of IterativeImputer reads; with all 649 it takes hours
_ROUNDS = 5


def main():
    views, is_test = _complete_views()
    print(f"| missing | seed | imputer | {' | '.join(views)} | all |\n|---|---|---|{'---|' * (len(views) + 1)}")
    for rate in map(float, _RATES.value):
        for seed in map(int, _SEEDS.value):
            present = draw_presence("random", rate, len(views), len(is_test), [seed], None)
            for name, imputer in {"mean": _mean, "IterativeImputer": _iterative, "mmvm": _mmvm}.items():
                filled = imputer(views, present, is_test, seed)
                errors = _errors(views, filled, present, is_test)
                print(f"| {rate:g} | {seed} | {name} | {' | '.join(errors)} |", flush=True)


def _complete_views() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All digits, {view: [N, F]} standardised by the training digits, and which are for test [N]."""
    config = base().data
    config.update({"name": "uci_multiple_features", "dir": _DIR.value})
    data = load_dataset(config)
    views = {name: np.concatenate([data.train.inputs[name], data.test.inputs[name]]) for name in data.train.inputs}
    return views, np.arange(len(data.train.labels) + len(data.test.labels)) >= len(data.train.labels)


def _mean(views, present, is_test, seed):
    del seed
    return {
        name: np.broadcast_to(view[row & ~is_test].mean(axis=0), view.shape)
        for (name, view), row in zip(views.items(), present)
    }


def _iterative(views, present, is_test, seed):
    """Every feature regressed on others, in turns (Bayesian ridge regression)."""
    holes = np.concatenate([np.where(row[:, None], view, np.nan) for view, row in zip(views.values(), present)], axis=1)
    known = holes[~is_test]
    limits = {"min_value": np.nanmin(known, axis=0), "max_value": np.nanmax(known, axis=0)}  # it diverges without
    imputer = IterativeImputer(max_iter=_ROUNDS, n_nearest_features=_NEIGHBOURS, random_state=seed, **limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of rounds is the point
        imputer.fit(known)
    filled = np.zeros_like(holes)
    filled[is_test] = imputer.transform(holes[is_test])
    places = np.cumsum([view.shape[1] for view in views.values()])[:-1]
    return dict(zip(views, np.split(filled, places, axis=1)))


def _mmvm(views, present, is_test, seed):
    config = mmvm_jax.default_config()
    config.seed, config.train.epochs, config.train.batch_size = seed, _EPOCHS.value, 64
    config.network.latent_dim = 20
    masks = {f"{name}__present": row for name, row in zip(views, present)}
    data = {**views, **masks, "split": is_test.astype(int)}
    return mmvm_jax.fit(data, config).impute(data, num_samples=50, seed=seed)


def _errors(views, filled, present, is_test) -> list[str]:
    """Mean squared error of what is missing from the test digits: a cell a view, and one for all entries."""
    squares = [
        np.square(filled[name] - view)[~row & is_test].ravel() for (name, view), row in zip(views.items(), present)
    ]
    return [f"{np.mean(values):.3f}" for values in (*squares, np.concatenate(squares))]


if __name__ == "__main__":
    command_line.start(main, "the same command starts from the beginning")
