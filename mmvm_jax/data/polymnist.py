"""PolyMNIST: up to five pictures of one digit class, each modality over crops of its own photograph.

Read from the published PNG files, or composed by the same recipe from MNIST and the user's photographs. The translated
variant has smaller digits at random positions.
"""

import dataclasses
import re

import numpy as np
import tensorflow_datasets as tfds

from mmvm_jax.data import builders, mnist, raw
from mmvm_jax.data.dataset import DataSet, fingerprint, read_complete_splits, select_modalities
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

SPLITS = ("train", "test")
SEED = 0
SIDE = 28
SCALED_SIDE = 21  # of a digit in the translated variant, 0.75 of SIDE
MAX_MODALITIES = 5
INK_LEVEL = 128  # of MNIST; ink is brighter
_COMPOSED_AT_ONCE = 1000

_SOURCE = "PolyMNIST (Sutter et al., 2021), doi 10.5281/zenodo.4899160; or MNIST and photographs of your own"
_LICENCE = "as their publishers state; MNIST: CC BY-SA 3.0"
_FILES = (
    "{published}, or " + mnist.FILES + " and a folder backgrounds/ of jpg or png photographs, "
    "one per modality, in the order of their names"
)
VARIANTS = {"polymnist": "plain", "polymnist_translated": "translated"}
_PUBLISHED = {"polymnist": "PolyMNIST.zip", "polymnist_translated": "PolyMNIST_translated_scale075.zip"}


@dataclasses.dataclass
class PolymnistConfig(tfds.core.BuilderConfig):
    """One of the two data sets, with a number of modalities."""

    dataset: str = "polymnist"
    num_modalities: int = MAX_MODALITIES


class Polymnist(tfds.core.GeneratorBasedBuilder):
    """Pictures of different handwritten digits of one class."""

    name = "polymnist"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        PolymnistConfig(name=f"{variant}_{count}", dataset=dataset, num_modalities=count)
        for dataset, variant in VARIANTS.items()
        for count in range(2, MAX_MODALITIES + 1)
    ]

    @property
    def names(self) -> list[str]:
        """Names of the modalities: m0, m1, ..."""
        return [f"m{number}" for number in range(self.builder_config.num_modalities)]

    def _info(self) -> tfds.core.DatasetInfo:
        return builders.stored_info(self, dict.fromkeys(self.names, ((SIDE, SIDE, 3), np.uint8)))

    def _split_generators(self, dl_manager):
        del dl_manager
        name = self.builder_config.dataset
        origin = raw.Origin(_FILES.format(published=_PUBLISHED[name]), _SOURCE, _LICENCE)
        files = raw.RawFiles(name, raw.data_root(self), origin)
        published = {split: _published_pictures(files, split) for split in SPLITS}
        if any(published.values()):
            paths = {split: self._find(files, split, found) for split, found in published.items()}
            return {split: self._generate_examples(files, split, *paths[split]) for split in SPLITS}
        photographs = read_photographs(files, len(self.names))
        digits = {split: mnist.read_mnist(files, split) for split in SPLITS}
        return {split: self._compose(files, photographs, split, *digits[split]) for split in SPLITS}

    def _find(self, files, split: str, pictures) -> tuple[list[tuple[int, int]], list[str]]:
        """Return numbers and classes of a split's examples, and the paths of their pictures, example by example."""
        keys = sorted({(number, label) for _, number, label in pictures}) or [(0, 0)]
        by_name = {f"{split}/{name}/{key[0]}.{key[1]}.png": (name, *key) for key in keys for name in self.names}
        return keys, list(files.find_all(by_name, lambda name: pictures.get(by_name[name])).values())

    def _generate_examples(self, files, split: str, keys, paths):
        decoded = raw.parallel(lambda path: _read_picture(files, path), paths)
        with Progress(len(keys), "examples", f"preparing {files.directory.name}, {split}") as progress:
            for row, (_, label) in enumerate(keys):
                yield row, {**{name: next(decoded) for name in self.names}, "label": label}
                progress.update(1)

    def _compose(self, files, photographs, split: str, images, targets):
        masks = digit_masks(images, self.builder_config.dataset == "polymnist_translated")
        labels, digits = draw_digits(targets, len(self.names), [SEED, SPLITS.index(split)])
        rngs = [np.random.default_rng([SEED, SPLITS.index(split), 1 + row]) for row in range(len(self.names))]
        with Progress(len(labels), "examples", f"composing {files.directory.name}, {split}") as progress:
            for start in range(0, len(labels), _COMPOSED_AT_ONCE):
                rows = slice(start, start + _COMPOSED_AT_ONCE)
                pictures = [
                    compose(masks[chosen[rows]], photograph, rng)
                    for chosen, photograph, rng in zip(digits, photographs, rngs, strict=True)
                ]
                for row, label in enumerate(labels[rows]):
                    example = {name: array[row] for name, array in zip(self.names, pictures, strict=True)}
                    yield start + row, {**example, "label": label}
                    progress.update(1)


def _published_pictures(files: raw.RawFiles, split: str) -> dict[tuple[str, int, int], str]:
    """Return {(modality, number, class): path} of the published pictures of a split."""
    pattern = re.compile(rf"(?:^|/){split}/(m\d)/(\d+)[._-](\d)\.png$")
    matches = ((path, pattern.search(path)) for path in files.paths)
    return {(match[1], int(match[2]), int(match[3])): path for path, match in matches if match}


def _read_picture(files: raw.RawFiles, path: str) -> np.ndarray:
    picture = np.asarray(files.image(path, "RGB"))
    if picture.shape != (SIDE, SIDE, 3):
        raise files.damaged(path, f"a picture of shape {picture.shape}; expected ({SIDE}, {SIDE}, 3)")
    return picture


def read_photographs(files: raw.RawFiles, count: int) -> list[np.ndarray]:
    """Read the first ``count`` photographs in ``backgrounds/``, by name: [height, width, 3] uint8 each.

    Raises:
      UserError: there are fewer photographs, or one is smaller than a digit.
    """
    pattern = re.compile(r"(?:^|/)backgrounds/[^/]+\.(jpg|jpeg|png)$", re.IGNORECASE)
    paths = [path for path in files.paths if pattern.search(path)]
    if not paths:
        raise files.missing("train/m0/0.0.png is")
    if len(paths) < count:
        raise UserError(
            f"{files.directory}/backgrounds holds {len(paths)} photographs; "
            f"allowed: {count} or more, one per modality, "
            f"or fewer modalities by config.data.num_modalities={len(paths)}"
        )
    photographs = [np.asarray(files.image(path, "RGB")) for path in paths[:count]]
    for path, photograph in zip(paths, photographs, strict=False):
        if min(photograph.shape[:2]) < SIDE:
            raise files.damaged(path, f"{photograph.shape[1]}x{photograph.shape[0]} pixels; expected {SIDE} or more")
    return photographs


def draw_digits(targets: np.ndarray, num_modalities: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """Assign every digit image to one example of its class in each modality.

    Args:
      targets: [N] classes of the digit images.
      num_modalities: M.
      seed: for ``np.random.default_rng``.

    Returns:
      labels [N] int32, with alternating classes, and digits [M, N]: indices of digit images.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(targets == label) for label in range(10)]
    keys = sorted((number, label) for label in range(10) for number in range(len(members[label])))
    numbers, labels = np.array(keys).T
    digits = np.empty((num_modalities, len(labels)), np.int64)
    for row in digits:
        for label, pool in enumerate(members):
            chosen = labels == label
            row[chosen] = rng.permutation(pool)[numbers[chosen]]
    return labels.astype(np.int32), digits


def digit_masks(images: np.ndarray, translated: bool) -> np.ndarray:
    """Return the ink of digits [N, 28, 28]: [N, 28, 28] bool, or scaled to [N, 21, 21]."""
    if not translated:
        return images > INK_LEVEL
    # Bilinear interpolation of the nearest two pixels without smoothing, like the published pictures.
    centre = np.clip((np.arange(SCALED_SIDE) + 0.5) * SIDE / SCALED_SIDE - 0.5, 0, SIDE - 1)
    weights = np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(SIDE))).astype(np.float32)
    return np.stack([weights @ image @ weights.T > INK_LEVEL for image in images])


def compose(masks: np.ndarray, photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return random crops of a photograph, inverted under masks [N, side, side] at random positions.

    Returns:
      [N, 28, 28, 3] uint8.
    """
    top, left = (rng.integers(0, length - SIDE + 1, len(masks)) for length in photograph.shape[:2])
    crops = crops_at(photograph, top, left)
    return np.where(place_randomly(masks, rng)[..., None], 255 - crops, crops)


def crops_at(photograph: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return crops of a photograph at positions [N]: [N, 28, 28, 3] uint8."""
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (SIDE, SIDE), axis=(0, 1))
    return np.ascontiguousarray(np.moveaxis(windows[top, left], 1, -1))


def place_randomly(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paste masks [N, side, side] at random offsets into empty masks [N, 28, 28]."""
    num_masks, side, _ = masks.shape
    top, left = rng.integers(0, SIDE - side + 1, size=(2, num_masks, 1, 1))
    steps = np.arange(side)
    placed = np.zeros((num_masks, SIDE, SIDE), bool)
    placed[np.arange(num_masks)[:, None, None], top + steps[:, None], left + steps] = masks
    return placed


def load(config_data, modalities=()) -> DataSet:
    """Load the data set; see ``load_dataset``.

    Reads ``name``, ``dir``, ``memory_gb`` and ``num_modalities`` of ``config.data``.
    """
    count = config_data.num_modalities
    if not 2 <= count <= MAX_MODALITIES:
        raise UserError(f"config.data.num_modalities is {count}; allowed: 2 to {MAX_MODALITIES}")
    offered = [Modality(f"m{row}", (SIDE, SIDE, 3), "image", "laplace", scale=0.75) for row in range(count)]
    chosen = select_modalities(offered, modalities)
    builder = builders.prepare(Polymnist, f"{VARIANTS[config_data.name]}_{count}", config_data.dir)
    train, test = read_complete_splits(builder, chosen, config_data.memory_gb)
    return DataSet(chosen, train, test, 10, "class", fingerprint(train, test))
