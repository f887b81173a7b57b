"""Whether every method trains to its end on data that used to stop it.

    python -m benchmarks.stability --cases=digits,lognormal_2,student_1.5,outlier --methods=mmvm,poe --seeds=1

Trains each method on each case with the default configuration for one's own data. A cell says ``ok`` if the loss and
the gradient stayed finite, the loss ended below its start and the encodings of all examples are finite; then the mean
loss of the first and the last tenth of the steps, and the largest gradient norm as a multiple of the median.
"""

import itertools
import tempfile
import time

import numpy as np
from absl import app, flags, logging

import mmvm_jax
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.config import own_data
from mmvm_jax.errors import UserError
from mmvm_jax.objectives.method import choose, variants

EXAMPLES = 1_000


def beside_gaussians(transform, columns: int = 10, plain_columns: int = 10) -> dict[str, np.ndarray]:
    """A table of Gaussians, ``plain``, and one of transformed Gaussians, ``other``, of four common factors."""
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(EXAMPLES, 4))
    table = lambda count: factors @ rng.normal(size=(4, count)) / 2 + 0.5 * rng.normal(size=(EXAMPLES, count))
    return {"plain": table(plain_columns), "other": transform(rng, table(columns))}


def digits() -> dict[str, np.ndarray]:
    """Scikit-learn's digits: the left half, the right half and noisy row means, 30 % of the views missing."""
    from sklearn.datasets import load_digits

    images, rng = load_digits().images, np.random.default_rng(0)
    halves = {"left": images[:, :, :4].reshape(-1, 32), "right": images[:, :, 4:].reshape(-1, 32)}
    views = halves | {"rows": images.mean(axis=2) + rng.normal(size=images.shape[:2])}
    present = rng.random((3, len(images))) > 0.3
    present[rng.integers(3, size=len(images)), np.arange(len(images))] |= ~present.any(axis=0)
    return views | {f"{name}__present": row for name, row in zip(list(views), present, strict=True)}


def _lognormal(sigma):
    return lambda: beside_gaussians(lambda rng, x: np.exp(sigma * x))


def _student(freedom):
    return lambda: beside_gaussians(lambda rng, x: x / np.sqrt(rng.chisquare(freedom, x.shape) / freedom))


def _column(value):
    """Column 3 replaced: by one number, or by a function of it."""

    def transform(rng, x):
        x[:, 3] = value(x[:, 3]) if callable(value) else value
        return x

    return lambda: beside_gaussians(transform)


def _outlier(rng, x):
    x[17, 3] = 1e6
    return x


def _missing(rate):
    def make():
        rng, data = np.random.default_rng(2), _lognormal(2)()
        present = rng.random((2, EXAMPLES)) >= rate
        present[rng.integers(2, size=EXAMPLES), np.arange(EXAMPLES)] |= ~present.any(axis=0)
        return data | {"plain__present": present[0], "other__present": present[1]}

    return make


def _same(rng, x):
    return x


CASES = {
    "gaussian": lambda: beside_gaussians(_same),
    "digits": digits,
    **{f"lognormal_{sigma}": _lognormal(sigma) for sigma in (1, 2, 3)},
    **{f"student_{freedom}": _student(freedom) for freedom in (1, 1.5, 2, 3)},
    "outlier": lambda: beside_gaussians(_outlier),
    "constant": _column(3.0),
    "nearly_constant": _column(lambda x: 3.0 + 1e-6 * (x > 2.5)),
    "offset": lambda: beside_gaussians(lambda rng, x: x + 1e6),
    **{f"columns_{count}": (lambda count=count: beside_gaussians(_same, count)) for count in (1, 2, 100, 2000)},
    "sizes_1_10000": lambda: beside_gaussians(_same, 10_000, 1),
    **{f"missing_{rate}": _missing(rate / 100) for rate in (30, 60, 90)},
}

_CASES = flags.DEFINE_list("cases", list(CASES), "Cases.")
_METHODS = flags.DEFINE_list("methods", list(variants()), "Methods; an aggregation stands for the method joint.")
_PRECISIONS = flags.DEFINE_list("precisions", ["float32", "bfloat16"], "Precisions of the networks.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds, from 0 on.")
_STEPS = flags.DEFINE_list("steps", ["1000", "5000"], "Lengths of training.")
_HIDDEN = flags.DEFINE_list("hidden", ["400", "400"], "Widths of the networks.")


def main(argv):
    del argv
    logging.set_verbosity(logging.ERROR)  # of the library that saves checkpoints
    cells = list(
        itertools.product(_CASES.value, _METHODS.value, _PRECISIONS.value, map(int, _STEPS.value), range(_SEEDS.value))
    )
    failed = 0
    for number, (case, method, precision, steps, seed) in enumerate(cells, 1):
        begun = time.monotonic()
        result = train(CASES[case](), method, precision, steps, seed)
        failed += not result.startswith("ok")
        seconds = time.monotonic() - begun
        cell = f"{case:16} {method:12} {precision:8} {steps:5} seed {seed}"
        print(f"[{number}/{len(cells)}] {cell}  {result}  ({seconds:.0f} s)", flush=True)
    print(f"{len(cells) - failed} of {len(cells)} cells ok")


def train(data: dict[str, np.ndarray], method: str, precision: str, steps: int, seed: int) -> str:
    """One cell of the table."""
    config = own_data()
    config.seed, config.precision = seed, precision
    choose(config.method, method)
    config.network.mlp.hidden_dims = tuple(map(int, _HIDDEN.value))
    config.train.update({"steps": steps, "log_every": 10})
    config.evaluation.mixture_components = 1
    with tempfile.TemporaryDirectory() as workdir:
        try:
            encoded = mmvm_jax.fit(data, config, workdir).encode(data)
        except UserError as error:
            return f"FAILED {str(error).split(';')[0]}"
        lines = [line for line in read_metrics(workdir) if line["split"] == "train"]
    losses, norms = (np.array([line[name] for line in lines]) for name in ("loss", "grad_norm"))
    first, last = np.array_split(losses, 10)[0].mean(), np.array_split(losses, 10)[-1].mean()
    observed = {name: data.get(name.split("__")[0] + "__present", slice(None)) for name in encoded}  # elsewhere NaN
    finite = all(np.isfinite(rows[observed[name]]).all() for name, rows in encoded.items())
    verdict = "ok" if finite and last < losses[0] else "FAILED"
    spike = norms.max() / np.median(norms)
    return f"{verdict} loss {first:.4g} to {last:.4g}, gradient up to {spike:.2g} times the median"


if __name__ == "__main__":
    app.run(main)
