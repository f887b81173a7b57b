"""CUB: photographs of birds with ten captions each. An example is a photograph and one of its captions."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmvm_jax.data import builders, cub_captions, raw, tables, text
from mmvm_jax.data.dataset import DataSet, Split, complete_split, fingerprint, select_modalities
from mmvm_jax.errors import unknown_name
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

SPLITS = ("train", "test")
SIDE = 64
NUM_CAPTIONS = 10  # per photograph
CAPTION_LENGTH = 32
MIN_COUNT = 4  # of a word in the training captions, for it to enter the vocabulary
FIRST_TEST_CLASS = 151  # of 200, if the splits are disjoint in classes
CAPTION_WEIGHT = SIDE * SIDE / CAPTION_LENGTH
# The attributes has_primary_color::*, grouped.
COLOURS = {
    "blue to red": (249, 251, 252, 253, 257, 258, 262),
    "brown": (250,),
    "grey": (254,),
    "yellow": (255, 256, 259, 263),
    "black": (260,),
    "white": (261,),
}
ORIGIN = raw.Origin(
    files="CUB_200_2011.tgz and cvpr2016_cub.tar.gz (CUB_200_2011/... and text_c10/<class>/<image>.txt, or "
    "text_trainvalclasses.txt and text_testclasses.txt beside the folders train/<class> and test/<class>)",
    source="Caltech-UCSD Birds-200-2011 (Wah et al., 2011), doi 10.22002/D1.20098; captions: Reed et al., "
    "'Learning Deep Representations of Fine-Grained Visual Descriptions' (CVPR 2016)",
    licence="non-commercial research and education",
)
_POLICIES = {
    "official": "Splits of train_test_split.txt.",
    "class_disjoint": "Classes 1 to 150 for training, 151 to 200 for test.",
}


class Cub(tfds.core.GeneratorBasedBuilder):
    """Photographs with their ten captions and the colours of the bird."""

    name = "cub"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=description) for name, description in _POLICIES.items()
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        captions = (NUM_CAPTIONS, CAPTION_LENGTH)
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Tensor(shape=(SIDE, SIDE, 3), dtype=np.uint8, encoding="bytes"),
                "captions": tfds.features.Tensor(shape=captions, dtype=np.int32, encoding="bytes"),
                "label": tfds.features.Tensor(shape=(len(COLOURS),), dtype=np.int32),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, features=features, disable_shuffling=True, metadata=tfds.core.MetadataDict()
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        files = raw.RawFiles(self.name, raw.data_root(self), ORIGIN)
        images = read_images(files)
        members = split_images(files, images, self.builder_config.name)
        raw.check_not_empty(self.name, members)
        colours = read_colours(files, images)
        paths = files.find_all(f"images/{name}" for name in images.values())
        captions = cub_captions.read_captions(files, images, NUM_CAPTIONS)
        training = (words for image in members["train"] for words in captions[image])
        vocabulary = text.build_vocabulary(training, MIN_COUNT)
        self.info.metadata["vocabulary"] = vocabulary
        ids = {word: number for number, word in enumerate(vocabulary)}
        entries = {
            image: (
                paths[f"images/{images[image]}"],
                np.stack([text.word_ids(words, ids, CAPTION_LENGTH) for words in sentences]),
                colours[image],
            )
            for image, sentences in captions.items()
        }
        return {
            split: self._generate_examples(files, split, [entries[image] for image in chosen])
            for split, chosen in members.items()
        }

    def _generate_examples(self, files, split: str, entries):
        pictures = raw.parallel(lambda entry: read_picture(files, entry[0]), entries)
        with Progress(len(entries), "photographs", f"preparing {self.name}, {split}") as progress:
            for row, (picture, (_, captions, colours)) in enumerate(zip(pictures, entries, strict=True)):
                yield row, {"image": picture, "captions": captions, "label": colours}
                progress.update(1)


def read_images(files: raw.RawFiles) -> dict[int, str]:
    """Return {number: file} of all photographs, where the file is ``<number of the class>.<class>/<image>.jpg``."""
    images, (path, rows) = {}, _rows(files, "CUB_200_2011/images.txt", 2)
    for _, (number, name) in rows:
        if not (number.isdecimal() and name.partition(".")[0].isdecimal()):
            raise files.damaged(path, f"a line is {number} {name}; expected <number> 001.<class>/...")
        images[int(number)] = name
    return images


def split_images(files: raw.RawFiles, images: dict[int, str], policy: str) -> dict[str, list[int]]:
    """Return the numbers of the photographs of each split."""
    if policy == "official":
        path, rows = _rows(files, "CUB_200_2011/train_test_split.txt", 2)
        is_training = {number: tables.flag(files, path, line, value) for line, (number, value) in rows}
        unknown = [image for image in images if str(image) not in is_training]
        if unknown:
            raise files.damaged(path, f"it has no line for {len(unknown)} images, such as {unknown[0]}")
        training = {image for image in images if is_training[str(image)]}
    else:
        training = {image for image, name in images.items() if int(name.split(".")[0]) < FIRST_TEST_CLASS}
    members = {"train": [], "test": []}
    for image in sorted(images):
        members["train" if image in training else "test"].append(image)
    return members


def read_colours(files: raw.RawFiles, images: dict[int, str]) -> dict[int, np.ndarray]:
    """Return which groups of ``COLOURS`` the bird of every photograph has: {number: [6] int32}.

    Some lines of the published table have additional columns; the first three have the same meaning in all lines.
    """
    groups = {str(attribute): row for row, group in enumerate(COLOURS.values()) for attribute in group}
    colours = {str(image): np.zeros(len(COLOURS), np.int32) for image in images}
    path, rows = _rows(files, "attributes/image_attribute_labels.txt", 3)
    for line, (image, attribute, is_present) in rows:
        if attribute in groups and image in colours and tables.flag(files, path, line, is_present):
            colours[image][groups[attribute]] = 1
    return {image: colours[str(image)] for image in images}


def read_picture(files: raw.RawFiles, path: str) -> np.ndarray:
    """Return a photograph resized to 64x64, in colour: [64, 64, 3] uint8."""
    return np.asarray(files.image(path, "RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _rows(files: raw.RawFiles, name: str, columns: int):
    """Return the path of a table, and an iterator over its line numbers and their first columns."""
    path = files.find(name, name.rpartition("/")[2], name.rpartition("/")[2].replace(".txt", ".csv"))

    def rows():
        for line, row in tables.rows(files, path):
            if len(row) < columns:
                raise files.damaged(path, f"line {line} is {' '.join(row)!r}; expected {columns} columns or more")
            if line > 1 or row[0].isdecimal() or path.endswith(".txt"):  # a .csv file may have a heading
                yield line, row[:columns]

    return path, rows()


def load(config_data, modalities=()) -> DataSet:
    """Load the data set; see ``load_dataset``. Reads ``dir`` and ``policy`` of ``config.data``."""
    policy = config_data.policy or "official"
    if policy not in _POLICIES:
        raise unknown_name("config.data.policy", policy, _POLICIES)
    builder = builders.prepare(Cub, policy, config_data.dir)
    vocabulary = tuple(builder.info.metadata["vocabulary"])
    caption = Modality(
        "caption",
        (CAPTION_LENGTH,),
        "tokens",
        "categorical",
        weight=CAPTION_WEIGHT,
        vocabulary_size=len(vocabulary),
        padding=text.PADDING,
        end=text.END,
    )
    image = Modality("image", (SIDE, SIDE, 3), "image", "laplace", scale=0.75)
    chosen = select_modalities((image, caption), modalities)
    train, test = (_read_split(builder, split, [modality.name for modality in chosen]) for split in SPLITS)
    return DataSet(
        chosen,
        train,
        test,
        len(COLOURS),
        "multilabel",
        fingerprint(train, test),
        class_names=tuple(COLOURS),
        vocabularies={"caption": vocabulary} if "caption" in train.inputs else {},
    )


def _read_split(builder, split: str, names) -> Split:
    """Read one example per caption. The examples of a photograph are consecutive."""
    stored = {"image": "image", "caption": "captions"}
    arrays, labels = builders.read_split(builder, split, [stored[name] for name in names])
    inputs = {}
    for name in names:
        if name == "image":
            inputs[name] = np.repeat(arrays["image"], NUM_CAPTIONS, axis=0)
        else:
            inputs[name] = arrays["captions"].reshape(-1, CAPTION_LENGTH)
    return complete_split(inputs, np.repeat(labels, NUM_CAPTIONS, axis=0))
