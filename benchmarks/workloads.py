"""What is timed: the networks and modalities of each data set's configuration, on random data of their shapes."""

import importlib

import numpy as np

from mmvm_jax.data import celeba, cub, hippocampal, text
from mmvm_jax.types import Batch, Modality

CUB = (
    Modality("image", (cub.SIDE, cub.SIDE, 3), "image", "laplace", scale=0.75),
    Modality(
        "caption",
        (cub.CAPTION_LENGTH,),
        "tokens",
        "categorical",
        weight=cub.CAPTION_WEIGHT,
        vocabulary_size=1868,  # words of the published model
        padding=text.PADDING,
    ),
)
OWN = {"celeba": celeba.MODALITIES, "cub": CUB, "hippocampal": hippocampal.MODALITIES}
# Configurations for any number of modalities, all pictures or, for the MLP, all vectors.
ANY_NUMBER = {"small_cnn": "polydigits", "polymnist_resnet": "polymnist", "mlp": "polydigits"}


def workload(what: str, count: int):
    """The configuration of a data set, without annealing, and ``count`` of its modalities, 0 for its own number."""
    config = importlib.import_module(f"configs.{ANY_NUMBER.get(what, what)}").get_config()
    config.method.beta = 1.0
    config.method.mmvm.anneal_alpha.shape = "constant"
    if what in OWN:
        return config, OWN[what][: count or None]
    names = [f"m{m}" for m in range(count or config.data.num_modalities)]
    if what == "mlp":
        config.network.name = what
        return config, tuple(Modality(name, (784,), "vector", "normal") for name in names)
    return config, tuple(Modality(name, (28, 28, 3), "image", "laplace", scale=0.75) for name in names)


def random_batch(modalities: tuple[Modality, ...], size: int) -> Batch:
    """Examples with every modality observed."""
    generator = np.random.default_rng(0)
    inputs = {modality.name: _random(generator, modality, size) for modality in modalities}
    present = np.ones((len(modalities), size), bool)
    return Batch(inputs, present, np.arange(size, dtype=np.int32), np.zeros(size, np.int32))


def _random(generator, modality: Modality, size: int):
    shape = (size, *modality.shape)
    if modality.kind == "tokens":
        return generator.integers(1, modality.vocabulary_size, shape).astype(np.int32)
    if modality.kind == "image":
        return generator.integers(0, 256, shape).astype(np.uint8)
    return generator.poisson(0.3, shape).astype(np.float32)
