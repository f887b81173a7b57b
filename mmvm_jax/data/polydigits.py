"""Polydigits: several pictures of one digit, each over a different photograph, without any download.

The recipe is PolyMNIST's: a random crop of a photograph, with its colours inverted under a handwritten digit. The
digits are the 1,797 of scikit-learn; the photographs are in the packages scikit-learn and scikit-image. No digit image
occurs in both splits.
"""

import dataclasses
import importlib.resources

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets

from mmvm_jax.data import builders
from mmvm_jax.data.dataset import DataSet, fingerprint, read_complete_splits, select_modalities, split_stratified
from mmvm_jax.data.polymnist import SCALED_SIDE, SIDE, crops_at, place_randomly
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

NUM_EXAMPLES = {"train": 10_000, "test": 2_000}
SEED = 0
# Package and file of the photographs of modalities m0 to m4.
PHOTOGRAPHS = (
    ("sklearn.datasets.images", "flower.jpg"),  # dark green leaves and an orange bloom
    ("skimage.data", "coffee.png"),  # red-brown wood and china
    ("skimage.data", "ihc.png"),  # stained tissue, pale and mottled
    ("skimage.data", "rocket.jpg"),  # blue evening sky and steel towers
    ("skimage.data", "hubble_deep_field.jpg"),  # galaxies on black
)
NAMES = tuple(f"m{number}" for number in range(len(PHOTOGRAPHS)))
INK_LEVEL = 7  # of 16; ink is darker
# A pixel is faint if inversion changes its colour by less than FAINT_CHANGE, on average over the channels. A crop is
# clear, and can be drawn, if at most a share of FAINT_SHARE of its pixels is faint.
FAINT_CHANGE = 80
FAINT_SHARE = 0.1


@dataclasses.dataclass
class PolydigitsConfig(tfds.core.BuilderConfig):
    """A variant. The translated one has smaller digits at random positions."""

    translated: bool = False


class Polydigits(tfds.core.GeneratorBasedBuilder):
    """Up to five pictures of different handwritten digits of one class."""

    name = "polydigits"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        PolydigitsConfig(name="plain", description="Digits as large as the picture."),
        PolydigitsConfig(name="translated", description="Digits scaled by 0.75.", translated=True),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return builders.stored_info(self, dict.fromkeys(NAMES, ((SIDE, SIDE, 3), np.uint8)), ("label", "index"))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in NUM_EXAMPLES}

    def _generate_examples(self, split: str):
        arrays = make_split(split, self.builder_config.translated)
        with Progress(NUM_EXAMPLES[split], "examples", f"preparing polydigits, {split}") as progress:
            for row in range(NUM_EXAMPLES[split]):
                yield row, {name: array[row] for name, array in arrays.items()}
                progress.update(1)


def make_split(split: str, translated: bool, seed: int = SEED) -> dict[str, np.ndarray]:
    """Compose a split: ``{"m0": [N, 28, 28, 3] uint8, ..., "label": [N], "index": [N]}``."""
    labels, digits = draw_digits(split, seed)
    masks = digit_masks(SCALED_SIDE if translated else SIDE)
    arrays = {"label": labels, "index": np.arange(len(labels), dtype=np.int32)}
    for number, name in enumerate(NAMES):
        rng = np.random.default_rng([seed, list(NUM_EXAMPLES).index(split), 1 + number])
        crops = random_crops(read_photograph(*PHOTOGRAPHS[number]), len(labels), rng)
        chosen = masks[digits[:, number]]
        under = place_randomly(chosen, rng) if translated else chosen
        np.subtract(255, crops, out=crops, where=under[..., None])
        arrays[name] = crops
    return arrays


def draw_digits(split: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the digits of every example: the same number of each class, in random order.

    Returns:
      labels [N] int32, and digits [N, 5]: indices of different digit images of that class.
    """
    targets = datasets.load_digits().target
    pool = np.sort(split_stratified(targets, seed)[split])
    rng = np.random.default_rng([seed, list(NUM_EXAMPLES).index(split), 0])
    labels = rng.permutation(np.arange(NUM_EXAMPLES[split], dtype=np.int32) % 10)
    digits = np.empty((len(labels), len(NAMES)), dtype=np.int64)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        members = np.tile(pool[targets[pool] == label], (len(rows), 1))
        digits[rows] = rng.permuted(members, axis=1)[:, : len(NAMES)]
    return labels, digits


def digit_masks(side: int) -> np.ndarray:
    """Return the ink of each digit, enlarged to ``side``: [1797, side, side] bool."""
    # The 8x8 digits touch the border; a margin preserves their outlines.
    images = np.pad(datasets.load_digits().images, ((0, 0), (2, 2), (2, 2))).astype(np.float32)
    # Sharpen: the coarse pixels weaken thin strokes, so that two zeros in five would be open, and half fill the holes
    # of eights. Each pixel is moved away from the mean of its four neighbours.
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    images = 2 * images[:, 1:-1, 1:-1] - around / 4
    enlarged = (Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in images)
    return np.stack([np.asarray(image) for image in enlarged]) > INK_LEVEL


def read_photograph(package: str, file: str) -> np.ndarray:
    """Read a photograph from an installed package: [height, width, 3] uint8.

    Raises:
      UserError: the installed version of the package does not contain it.
    """
    path = importlib.resources.files(package) / file
    if not path.is_file():
        package = package.split(".")[0]
        raise UserError(f"photograph '{file}' is not in the installed package {package}; reinstall it")
    with path.open("rb") as stream:
        return np.asarray(Image.open(stream).convert("RGB"))


def random_crops(photograph: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw clear 28x28 crops uniformly, with replacement: [count, 28, 28, 3] uint8."""
    change = np.abs(255 - 2 * photograph.astype(np.int16)).mean(axis=-1)
    sums = np.pad((change < FAINT_CHANGE).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    faint = sums[SIDE:, SIDE:] - sums[:-SIDE, SIDE:] - sums[SIDE:, :-SIDE] + sums[:-SIDE, :-SIDE]
    top, left = np.nonzero(faint <= FAINT_SHARE * SIDE**2)
    chosen = rng.integers(len(top), size=count)
    return crops_at(photograph, top[chosen], left[chosen])


def load(config_data, modalities=()) -> DataSet:
    """Load the data set; see ``load_dataset``.

    Reads ``dir``, ``memory_gb``, ``variant`` and ``num_modalities`` of ``config.data``.
    """
    variants = [config.name for config in Polydigits.BUILDER_CONFIGS]
    if config_data.variant not in variants:
        raise unknown_name("config.data.variant", config_data.variant, variants)
    if not 2 <= config_data.num_modalities <= len(NAMES):
        count = config_data.num_modalities
        raise UserError(f"config.data.num_modalities is {count}; allowed: 2 to {len(NAMES)}")
    offered = [
        Modality(name, (SIDE, SIDE, 3), "image", "laplace", scale=0.75) for name in NAMES[: config_data.num_modalities]
    ]
    chosen = select_modalities(offered, modalities)
    builder = builders.prepare(Polydigits, config_data.variant, config_data.dir)
    train, test = read_complete_splits(builder, chosen, config_data.memory_gb)
    return DataSet(chosen, train, test, 10, "class", fingerprint(train, test))
