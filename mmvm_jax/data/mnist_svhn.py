"""MNIST-SVHN: handwritten digits and photographed house numbers of the same class, paired at random."""

import dataclasses
import io

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from mmvm_jax.data import builders, mnist, on_disk, raw
from mmvm_jax.data.dataset import DataSet, fingerprint, read_complete_splits, select_modalities
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

SPLITS = ("train", "test")
SEED = 0
MAX_PAIRINGS = 30
MODALITIES = (
    Modality("mnist", (28, 28, 1), "image", "laplace"),
    Modality("svhn", (32, 32, 3), "image", "laplace"),
)
ORIGIN = raw.Origin(
    files=f"{mnist.FILES}, train_32x32.mat, test_32x32.mat",
    source="MNIST (LeCun et al., 1998); Street View House Numbers, cropped digits (Netzer et al., 2011)",
    licence="MNIST: CC BY-SA 3.0; SVHN: non-commercial use",
)


@dataclasses.dataclass
class MnistSvhnConfig(tfds.core.BuilderConfig):
    """Number of times that the examples of each class are paired."""

    pairings: int = 1


class MnistSvhn(tfds.core.GeneratorBasedBuilder):
    """Pairs of pictures of the same digit."""

    name = "mnist_svhn"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        MnistSvhnConfig(name=f"pairings_{count}", pairings=count) for count in range(1, MAX_PAIRINGS + 1)
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return builders.stored_info(self, {modality.name: (modality.shape, np.uint8) for modality in MODALITIES})

    def _split_generators(self, dl_manager):
        del dl_manager
        files = raw.RawFiles(self.name, raw.data_root(self), ORIGIN)
        parts = {}
        for split in SPLITS:
            digits, svhn = mnist.read_mnist(files, split), read_svhn(files, split)
            seed = [SEED, SPLITS.index(split)]
            pairs = pair_classes(digits[1], svhn[1], self.builder_config.pairings, seed)
            examples = self._generate_examples(split, digits, svhn[0], pairs)
            parts |= on_disk.in_parts(split, examples, len(pairs), self.info.features)
        return parts

    def _generate_examples(self, split: str, digits, numbers, pairs):
        digits, digit_labels = digits
        with Progress(len(pairs), "pairs", f"preparing {self.name}, {split}") as progress:
            for row, (digit, number) in enumerate(pairs):
                example = {"mnist": digits[digit, ..., None], "svhn": numbers[number]}
                yield row, {**example, "label": digit_labels[digit]}
                progress.update(1)


def read_svhn(files: raw.RawFiles, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return house numbers and their classes: [N, 32, 32, 3] uint8, [N] int32."""
    path = files.find(f"{split}_32x32.mat")
    try:
        content = scipy.io.loadmat(io.BytesIO(files.read(path)), variable_names=["X", "y"])
        images, labels = np.moveaxis(content["X"], -1, 0), content["y"].ravel().astype(np.int32)
    except (*raw.DAMAGED, scipy.io.matlab.MatReadError) as error:
        raise files.damaged(path, error) from error
    if images.shape != (len(labels), 32, 32, 3) or images.dtype != np.uint8 or not len(labels):
        raise files.damaged(path, f"X has shape {images.shape} beside {len(labels)} labels")
    return images, labels % 10  # SVHN uses class 10 for the digit 0


def pair_classes(first: np.ndarray, second: np.ndarray, pairings: int, seed) -> np.ndarray:
    """Pair examples of equal class at random, ``pairings`` times; the side with fewer examples limits their number.

    Args:
      first, second: classes, [N1] and [N2].
      pairings: number of times that each class is paired.
      seed: for ``np.random.default_rng``.

    Returns:
      [N, 2]: indices into ``first`` and ``second``, with the pairs in random order.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for label in np.intersect1d(first, second):
        sides = [np.flatnonzero(labels == label) for labels in (first, second)]
        count = min(map(len, sides))
        pairs += [np.stack([rng.permutation(side)[:count] for side in sides], 1) for _ in range(pairings)]
    return rng.permutation(np.concatenate(pairs))


def load(config_data, modalities=()) -> DataSet:
    """Load the data set; see ``load_dataset``. Reads ``dir``, ``memory_gb`` and ``pairings`` of ``config.data``."""
    if not 1 <= config_data.pairings <= MAX_PAIRINGS:
        raise UserError(f"config.data.pairings is {config_data.pairings}; allowed: 1 to {MAX_PAIRINGS}")
    chosen = select_modalities(MODALITIES, modalities)
    builder = builders.prepare(MnistSvhn, f"pairings_{config_data.pairings}", config_data.dir)
    train, test = read_complete_splits(builder, chosen, config_data.memory_gb)
    return DataSet(chosen, train, test, 10, "class", fingerprint(train, test))
