"""Predict proteins from genes in simulated cells with gaps, beside ridge regression, and probe the latents.

    python -m benchmarks.cells

RNA, chromatin and protein counts of 3,000 cells of six types, with library sizes and two batches. Half of the cells
have all three; the others lack the proteins and either RNA or chromatin. A fifth of the cells is for testing.
"""

import time

import numpy as np
import pandas as pd
from absl import app, flags
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV

import mmvm_jax

_SEED = flags.DEFINE_integer("seed", 0, "Seed of the data and of the training.")
CELLS, TYPES, BATCHES, FACTORS = 3_000, 6, 2, 8
# Name: number of features, range of their log-rates, effect of the factors, dispersion, effect of the batch.
TABLES = {
    "rna": (500, (-2.0, 3.5), 0.8, 0.5, 0.6),
    "atac": (800, (-2.5, 0.0), 1.0, 1.0, 0.4),
    "protein": (20, (3.5, 6.5), 0.6, 0.25, 0.3),
}
COMPONENTS = 30


def simulate(seed: int) -> tuple[dict[str, pd.DataFrame], np.ndarray, np.ndarray]:
    """Return the counts of all cells, their types and their batches."""
    generator = np.random.default_rng(seed)
    types, batches = generator.integers(TYPES, size=CELLS), generator.integers(BATCHES, size=CELLS)
    centres = 1.5 * generator.normal(size=(TYPES, FACTORS))
    factors = centres[types] + 0.5 * generator.normal(size=(CELLS, FACTORS))
    library = 0.5 * generator.normal(size=(CELLS, 1))
    tables = {}
    for name, (features, log_rates, effect, dispersion, of_batch) in TABLES.items():
        weights = effect * generator.normal(size=(FACTORS, features)) / np.sqrt(FACTORS)
        shift = of_batch * generator.normal(size=(BATCHES, features))
        rates = np.exp(library + factors @ weights + generator.uniform(*log_rates, features) + shift[batches])
        counts = generator.poisson(generator.gamma(1 / dispersion, rates * dispersion))
        tables[name] = pd.DataFrame(counts, columns=[f"{name}{number}" for number in range(features)])
        tables[name].index = [f"cell{number}" for number in range(CELLS)]
    return tables, types, batches


def with_gaps(tables: dict[str, pd.DataFrame], seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables without the rows of the cells in which they were not measured."""
    lacks = np.random.default_rng(seed + 1).choice(["nothing", "rna", "atac"], CELLS, p=[0.5, 0.25, 0.25])
    kept = {"rna": lacks != "rna", "atac": lacks != "atac", "protein": lacks == "nothing"}
    return {name: table[kept[name]] for name, table in tables.items()}


def ridge(train: dict[str, pd.DataFrame], rna: pd.DataFrame, transform) -> np.ndarray:
    """Return the proteins of cells predicted from principal components of their genes."""
    components = PCA(COMPONENTS, random_state=0).fit(np.log1p(train["rna"]))
    read = lambda genes: np.c_[components.transform(np.log1p(genes)), np.log1p(genes.sum(axis=1))]
    both = train["protein"].index
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(read(train["rna"].loc[both]), transform(train["protein"]))
    return model.predict(read(rna))


def error(predicted, truth: pd.DataFrame) -> float:
    """Return the mean over proteins of the squared error divided by the variance."""
    return float((np.square(np.asarray(predicted) - truth).mean() / truth.var(ddof=0)).mean())


def main(argv) -> None:
    """Print the errors of both, and the accuracy of classifiers of latents."""
    del argv
    tables, types, batches = simulate(_SEED.value)
    is_test = pd.Series(np.random.default_rng(_SEED.value + 2).random(CELLS) < 0.2, tables["rna"].index)
    given = with_gaps(tables, _SEED.value)
    train = {name: table[~is_test[table.index]] for name, table in given.items()}
    rna, truth = tables["rna"][is_test], tables["protein"][is_test]
    config, begun = mmvm_jax.default_config(), time.monotonic()
    config.seed = _SEED.value
    model = mmvm_jax.fit(train, config)
    filled = model.impute({"rna": rna})["protein"]
    seconds = time.monotonic() - begun
    for name, transform in {"counts": np.asarray, "logarithms": np.log1p}.items():
        shown = pd.DataFrame(transform(truth), truth.index, truth.columns)
        ours, theirs = error(transform(filled), shown), error(ridge(train, rna, transform), shown)
        print(f"proteins from genes, {name}: mmvm_jax {ours:.3f}, ridge regression {theirs:.3f}")
    latents = model.encode(given)["joint__mean"].loc[tables["rna"].index]
    for name, labels in {"type": types, "batch": batches}.items():
        probe = LogisticRegression(max_iter=2_000).fit(latents[~is_test], labels[~is_test])
        print(f"{name} of a cell from its latents: {probe.score(latents[is_test], labels[is_test]):.3f}")
    print(f"training and imputation: {seconds:.0f} s")


if __name__ == "__main__":
    app.run(main)
