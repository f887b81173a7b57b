"""How a training step of each method grows with the number of modalities.

    python -m benchmarks.objectives --modalities=2,3,5,10,20

Prints, per method and number of modalities M, the time to compile the step and its fastest and median time over a
few repetitions, on random images of the shape of ``polydigits`` with the small convolutional network.
"""

import statistics

import jax
from absl import app, flags

from benchmarks.measure import seconds_of_steps
from benchmarks.workloads import random_batch
from mmvm_jax.config import base
from mmvm_jax.errors import UserError
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import choose, make_method, variants
from mmvm_jax.types import Modality

_METHODS = flags.DEFINE_list("methods", list(variants()), "Methods; an aggregation stands for the method joint.")
_MODALITIES = flags.DEFINE_list("modalities", ["2", "3", "5", "10", "20"], "Numbers of modalities.")
_BATCH = flags.DEFINE_integer("batch", 128, "Examples in a batch.")
_STEPS = flags.DEFINE_integer("steps", 5, "Repetitions that are timed.")
_DECODES = flags.DEFINE_integer("max_decodes", 20_000, "Cells that decode more images than this are left out.")


def main(argv):
    del argv
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, batch {_BATCH.value}; seconds")
    print(f"{'method':12} {'M':>3} {'compile':>8} {'min':>8} {'median':>8}")
    for method in _METHODS.value:
        for count in map(int, _MODALITIES.value):
            print(f"{method:12} {count:3d} {_row(method, count)}", flush=True)


def _row(method: str, count: int) -> str:
    config = _config(method)
    if decodes(config, count) > _DECODES.value:
        return f"left out: {decodes(config, count):,} decoded images a step"
    try:
        compile_seconds, seconds = measure(config, count)
    except (UserError, ValueError) as error:
        return str(error)
    return f"{compile_seconds:8.2f} {min(seconds):8.3f} {statistics.median(seconds):8.3f}"


def _config(method: str):
    config = base()
    choose(config.method, method)
    config.train.update({"batch_size": _BATCH.value, "steps": 100})
    return config


def decodes(config, count: int) -> int:
    """Images decoded in a step, by the method's definition."""
    per_example = {
        "mmvae": count**2 * config.method.mmvae.num_samples,
        "mmvae_plus": count**2 * config.method.mmvae_plus.num_samples,
        "meme": count**2 * (config.method.meme.num_samples + 1),
        "crmvae": count * 2,
        "mvae": count * (2 + config.method.mvae.num_subsets),
    }
    return _BATCH.value * per_example.get(config.method.name, count)


def measure(config, count: int) -> tuple[float, list[float]]:
    """Seconds to compile a step of ``count`` modalities, and of each timed step."""
    modalities = tuple(Modality(f"m{m}", (28, 28, 3), "image", "laplace", 0.75) for m in range(count))
    model, method = make_model(modalities, config.network), make_method(config.method)
    return seconds_of_steps(config, model, method, random_batch(modalities, _BATCH.value), _STEPS.value)


if __name__ == "__main__":
    app.run(main)
