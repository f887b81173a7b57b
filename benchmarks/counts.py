"""Rates of one half of a population of neurons, imputed from the other half, against Poisson regression.

    python -m benchmarks.counts

Simulates 40 place cells of an animal on a line, 2,000 bins, with a common gain that drifts. Every second neuron is one
modality, the others the second. Prints the mean log-likelihood (nats per bin) of the second half in test bins, given
the first half, of a constant rate, Poisson regression on square roots, MMVM with several weights of counts, and the
rates that the counts were drawn from.
"""

import numpy as np
from absl import app
from scipy.special import gammaln
from sklearn.linear_model import PoissonRegressor

import mmvm_jax

BINS, NEURONS, BLOCK = 2_000, 40, 100


def simulate(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and rates, [BINS, NEURONS]."""
    rng = np.random.default_rng(seed)
    position = np.abs(np.cumsum(rng.normal(0, 0.05, BINS)) % 2 - 1)
    rng.normal(0, 0.4, BINS)
    gain = np.exp(1.5 * np.convolve(rng.normal(size=BINS + 20), np.ones(20) / 20, "same")[:BINS])
    centre, width = rng.random(NEURONS), 0.05 + 0.1 * rng.random(NEURONS)
    peak, floor = rng.lognormal(0.5, 0.8, NEURONS), rng.lognormal(-2, 0.8, NEURONS)
    rates = (floor + peak * np.exp(-0.5 * ((position[:, None] - centre) / width) ** 2)) * gain[:, None]
    return rng.poisson(rates), rates


def log_likelihood(rates: np.ndarray, counts: np.ndarray) -> float:
    """Mean over the bins."""
    return float((counts * np.log(np.maximum(rates, 1e-6)) - rates - gammaln(counts + 1)).sum(axis=1).mean())


def regression(given: np.ndarray, target: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Rates by one Poisson regression per neuron."""
    mean, scale = np.sqrt(given).mean(axis=0), np.sqrt(given).std(axis=0) + 1e-6
    features = lambda counts: (np.sqrt(counts) - mean) / scale
    fitted = [PoissonRegressor(alpha=0.01, max_iter=500).fit(features(given), column) for column in target.T]
    return np.stack([one.predict(features(shown)) for one in fitted], axis=1)


def imputed(given: np.ndarray, target: np.ndarray, shown: np.ndarray, weight: float) -> np.ndarray:
    """Rates by MMVM with its defaults for own data, except the weight of counts."""
    config = mmvm_jax.default_config()
    config.data.kinds, config.data.weights = "a=counts,b=counts", f"a={weight},b={weight}"
    config.network.mlp.hidden_dims, config.train.steps = (128, 128), 3_000
    return mmvm_jax.fit({"a": given, "b": target}, config).impute({"a": shown})["b"]


def main(argv):
    del argv
    counts, rates = simulate()
    is_test = np.arange(BINS) // BLOCK % 5 == 4
    first, second = counts[:, ::2], counts[:, 1::2]
    given, target, shown, truth = first[~is_test], second[~is_test], first[is_test], second[is_test]
    show = lambda name, found: print(f"{name:32} {log_likelihood(found, truth):8.2f}", flush=True)
    show("constant rate", np.broadcast_to(target.mean(axis=0), truth.shape))
    show("Poisson regression", regression(given, target, shown))
    for weight in (1.0, 0.5, 0.25, 0.1):
        show(f"MMVM, weight {weight}", imputed(given, target, shown, weight))
    show("true rates", rates[is_test, 1::2])


if __name__ == "__main__":
    app.run(main)
