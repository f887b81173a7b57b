"""CelebA: photographs of faces, each with a text that lists the attributes of the face."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmvm_jax.data import builders, on_disk, raw, tables, text
from mmvm_jax.data.dataset import DataSet, fingerprint, read_complete_splits, select_modalities
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

# Spellings in the publisher's file and in copies of it. The validation split is not prepared.
PARTITIONS = {"train": ("0", "train"), "test": ("2", "test")}
ALL_PARTITIONS = (*PARTITIONS["train"], "1", "val", "valid", "validation", *PARTITIONS["test"])
SEED = 0
SIDE = 64
WIDTH, CROP = 178, 148  # of a published picture, and of its centre crop
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
        paths = find_pictures(files, [image for images in members.values() for image in images])
        unknown = [image for image in paths if image not in attributes]
        if unknown:
            raise files.missing(f"{len(unknown)} rows in list_attr_celeba.txt, such as that of {unknown[0]}, are")
        parts = {}
        for split, images in members.items():
            examples = self._generate_examples(
                files, split, names, attributes, {image: paths[image] for image in images}
            )
            parts |= on_disk.in_parts(split, examples, len(images), self.info.features)
        return parts

    def _generate_examples(self, files, split: str, names, attributes, paths):
        pictures = raw.parallel(lambda path: read_picture(files, path), paths.values())
        with Progress(len(paths), "faces", f"preparing {self.name}, {split}") as progress:
            for row, (picture, image) in enumerate(zip(pictures, paths, strict=True)):
                label = attributes[image]
                rng = np.random.default_rng([SEED, int(PARTITIONS[split][0]), row])
                yield row, {"image": picture, "text": write_text(names, label, rng), "label": label}
                progress.update(1)


def read_attributes(files: raw.RawFiles) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the names of the 40 attributes, and which of them every image has: {file: [40] uint8}.

    The heading names the attributes, possibly after other columns or an index.
    """
    path = files.find("list_attr_celeba.txt", "list_attr_celeba.csv")
    heading, count, attributes = [], None, {}
    for line, row in tables.rows(files, path):
        image, values = _after_image(row)
        if image is None:
            if len(row) == 1 and row[0].isdecimal():
                count = int(row[0])
            else:
                heading = row
            continue
        if len(values) != NUM_ATTRIBUTES or len(heading) < NUM_ATTRIBUTES:
            raise files.damaged(path, f"the row of {image} has {len(values)} values; expected {NUM_ATTRIBUTES}")
        attributes[image] = np.array([tables.flag(files, path, line, value) for value in values], np.uint8)
    if not attributes or count not in (None, len(attributes)):
        raise files.damaged(path, f"it has rows of {len(attributes)} images; expected {count or 'one or more'}")
    return heading[-NUM_ATTRIBUTES:], attributes


def read_partition(files: raw.RawFiles) -> dict[str, list[str]]:
    """Return the names of the image files of each split."""
    path = files.find("list_eval_partition.txt", "list_eval_partition.csv")
    members = {split: [] for split in PARTITIONS}
    for line, row in tables.rows(files, path):
        image, values = _after_image(row)
        if image is None and line == 1:
            continue
        number = values[0].removesuffix(".0").casefold() if values else None
        if image is None or number not in ALL_PARTITIONS:
            raise files.damaged(path, f"line {line} is {' '.join(row)[:40]!r}; expected an image and 0, 1 or 2")
        for split, theirs in PARTITIONS.items():
            if number in theirs:
                members[split].append(image)
    return {split: sorted(images, key=raw.natural_key) for split, images in members.items()}


def _after_image(row: list[str]) -> tuple[str | None, list[str]]:
    """Return the image file named in a row, without folders, and the cells after it."""
    for place, cell in enumerate(row[:3]):
        if cell.lower().endswith((".jpg", ".jpeg", ".png")):
            return cell.rpartition("/")[2], row[place + 1 :]
    return None, []


def find_pictures(files: raw.RawFiles, images: list[str]) -> dict[str, str]:
    """Return the path of every image. It may be in any folder, and may be a PNG file.

    Raises:
      UserError: some are missing.
    """

    def find(image: str) -> str | None:
        for name in (image, image.rpartition(".")[0] + ".png"):
            paths = [path for path in files.find_every(name) if "img_celeba/" not in path]  # these are not aligned
            if paths:
                return min(paths, key=lambda path: ("align" not in path, len(path)))
        return None

    found = files.find_all(map("img_align_celeba/{}".format, images), lambda path: find(path.rpartition("/")[2]))
    return {path.rpartition("/")[2]: there for path, there in found.items()}


def read_picture(files: raw.RawFiles, path: str) -> np.ndarray:
    """Return the centre crop of a picture of the published size or a scaled one: [64, 64, 3] uint8."""
    picture = files.image(path, "RGB")
    side = min(max(1, round(CROP * picture.width / WIDTH)), picture.height)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    cropped = picture.crop((left, top, left + side, top + side))
    return np.asarray(cropped.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_text(names, attributes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a text of the present attributes' names, at a random position: [256] ids of characters, int32."""
    present = [name.replace("_", " ").lower() for name, has in zip(names, attributes, strict=True) if has]
    line = ", ".join(present)
    start = int(rng.integers(max(TEXT_LENGTH - len(line), 0) + 1))
    return text.character_ids(line, start, TEXT_LENGTH)


def load(config_data, modalities=()) -> DataSet:
    """Load the data set; see ``load_dataset``. Reads ``dir`` and ``memory_gb`` of ``config.data``."""
    chosen = select_modalities(MODALITIES, modalities)
    builder = builders.prepare(Celeba, "aligned", config_data.dir)
    train, test = read_complete_splits(builder, chosen, config_data.memory_gb)
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
