"""CelebA: photographs of faces, and a text that names the attributes of the face."""

import csv
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmvm_jax.data import builders, on_disk, raw, text
from mmvm_jax.data.dataset import DataSet, complete_split, fingerprint, select_modalities
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

PARTITIONS = {"train": "0", "test": "2"}  # in the publisher's file; its validation split, 1, is not prepared
SEED = 0
SIDE = 64
CROP = 148
TEXT_LENGTH = 256
MODALITIES = (
    Modality("image", (SIDE, SIDE, 3), "image", "laplace", scale=0.75),
    Modality(
        "text",
        (TEXT_LENGTH,),
        "tokens",
        "categorical",
        weight=SIDE * SIDE / TEXT_LENGTH,
        vocabulary_size=len(text.ALPHABET),
    ),
)
NUM_ATTRIBUTES = 40
ORIGIN = raw.Origin(
    files="img_align_celeba.zip, list_attr_celeba.txt (or .csv) and list_eval_partition.txt (or .csv)",
    source="Large-scale CelebFaces Attributes, aligned and cropped images (Liu et al., 2015)",
    licence="non-commercial research",
)


class Celeba(tfds.core.GeneratorBasedBuilder):
    """Faces, texts and attributes."""

    name = "celeba"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="aligned", description="Centre crops of aligned faces.")]

    def _info(self) -> tfds.core.DatasetInfo:
        arrays = {
            "image": ((SIDE, SIDE, 3), np.uint8),
            "text": ((TEXT_LENGTH,), np.int32),
            "label": ((NUM_ATTRIBUTES,), np.uint8),
        }
        return builders.stored_info(self, arrays, numbers=(), metadata=tfds.core.MetadataDict())

    def _split_generators(self, dl_manager):
        del dl_manager
        files = raw.RawFiles(self.name, raw.data_root(self), ORIGIN)
        names, attributes = read_attributes(files)
        self.info.metadata["attributes"] = names
        members = read_partition(files)
        raw.check_not_empty(self.name, members)
        parts = {}
        for split, images in members.items():
            examples = self._generate_examples(files, split, names, attributes, images)
            parts |= on_disk.in_parts(split, examples, len(images), self.info.features)
        return parts

    def _generate_examples(self, files, split: str, names, attributes, images):
        for image in images:
            if image not in attributes:
                raise files.missing(f"the row of {image} in list_attr_celeba.txt")
        pictures = raw.parallel(lambda image: read_picture(files, image), images)
        with Progress(len(images), "faces", f"preparing {self.name}, {split}") as progress:
            for row, (picture, image) in enumerate(zip(pictures, images, strict=True)):
                label = attributes[image]
                rng = np.random.default_rng([SEED, int(PARTITIONS[split]), row])
                yield row, {"image": picture, "text": write_text(names, label, rng), "label": label}
                progress.update(1)


def read_attributes(files: raw.RawFiles) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the 40 attributes, and which of them every image has: {file: [40] uint8}."""
    path = files.find("list_attr_celeba.txt", "list_attr_celeba.csv")
    rows = _table(files, path)
    if not path.endswith(".csv"):
        next(rows, None)  # the number of images
    names = next(rows, [])
    names = names[1:] if path.endswith(".csv") else names
    attributes = {}
    for image, *values in rows:
        if not len(values) == len(names) == NUM_ATTRIBUTES:
            raise files.damaged(path, f"the row of {image} has {len(values)} values; expected {NUM_ATTRIBUTES}")
        attributes[image] = np.array([value == "1" for value in values], np.uint8)
    return list(names), attributes


def read_partition(files: raw.RawFiles) -> dict[str, list[str]]:
    """Image files of each split, by name."""
    path = files.find("list_eval_partition.txt", "list_eval_partition.csv")
    rows = list(_table(files, path))
    return {
        split: sorted((image for image, theirs in rows if theirs == number), key=raw.natural_key)
        for split, number in PARTITIONS.items()
    }


def _table(files: raw.RawFiles, path: str):
    """Rows of a table, separated by commas or by spaces."""
    content = files.text(path)
    rows = csv.reader(io.StringIO(content)) if path.endswith(".csv") else map(str.split, content.splitlines())
    return (row for row in rows if row)


def read_picture(files: raw.RawFiles, image: str) -> np.ndarray:
    """The middle of a face's picture: [64, 64, 3] uint8."""
    picture = files.image(files.find(f"img_align_celeba/{image}"), "RGB")
    left, top = (picture.width - CROP) // 2, (picture.height - CROP) // 2
    cropped = picture.crop((left, top, left + CROP, top + CROP))
    return np.asarray(cropped.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_text(names, attributes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Names of the attributes present, from a random position on: [256] ids of characters, int32."""
    present = [name.replace("_", " ").lower() for name, has in zip(names, attributes, strict=True) if has]
    line = ", ".join(present)
    start = rng.integers(max(TEXT_LENGTH - len(line), 0) + 1)
    return text.character_ids(line, start, TEXT_LENGTH)


def load(config_data, modalities=()) -> DataSet:
    """Prepares the data set if need be and reads it.

    Args:
      config_data: ``config.data``; read are ``dir`` and ``memory_gb``.
      modalities: names of those wanted; both if empty.

    Raises:
      UserError: files are missing or damaged.
    """
    chosen = select_modalities(MODALITIES, modalities)
    builder = builders.prepare(Celeba, "aligned", builders.data_directory(config_data.dir))
    names = [modality.name for modality in chosen]
    train, test = (
        complete_split(*on_disk.read_split(builder, split, names, config_data.memory_gb)) for split in PARTITIONS
    )
    return DataSet(
        chosen,
        train,
        test,
        NUM_ATTRIBUTES,
        "multilabel",
        fingerprint(train, test),
        class_names=tuple(builder.info.metadata["attributes"]),
        vocabularies={"text": tuple(text.ALPHABET)} if "text" in train.inputs else {},
    )
