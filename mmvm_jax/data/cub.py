"""CUB: photographs of birds, each with ten captions; a photograph and one of its captions are an example."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmvm_jax.data import builders, raw, text
from mmvm_jax.data.dataset import DataSet, Split, complete_split, fingerprint, select_modalities
from mmvm_jax.errors import unknown_name
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

SPLITS = ("train", "test")
SIDE = 64
NUM_CAPTIONS = 10  # of a photograph
CAPTION_LENGTH = 32
MIN_COUNT = 4  # occurrences in training captions that make a word known
FIRST_TEST_CLASS = 151  # of 200, where the splits share no class
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
    files="CUB_200_2011.tgz and cvpr2016_cub.tar.gz (CUB_200_2011/... and text_c10/<class>/<image>.txt)",
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
        colours = read_colours(files, images)
        members = split_images(files, images, self.builder_config.name)
        captions = {image: read_captions(files, name) for image, name in images.items()}
        training = (words for image in members["train"] for words in captions[image])
        vocabulary = text.build_vocabulary(training, MIN_COUNT)
        self.info.metadata["vocabulary"] = vocabulary
        ids = {word: number for number, word in enumerate(vocabulary)}
        for image, sentences in captions.items():
            captions[image] = np.stack([text.word_ids(words, ids, CAPTION_LENGTH) for words in sentences])
        return {
            split: self._generate_examples(files, split, [(images[i], captions[i], colours[i]) for i in chosen])
            for split, chosen in members.items()
        }

    def _generate_examples(self, files, split: str, entries):
        paths = [files.find(f"images/{name}") for name, _, _ in entries]
        pictures = raw.parallel(lambda path: read_picture(files, path), paths)
        with Progress(len(entries), "photographs", f"preparing {self.name}, {split}") as progress:
            for row, (picture, (_, captions, colours)) in enumerate(zip(pictures, entries, strict=True)):
                yield row, {"image": picture, "captions": captions, "label": colours}
                progress.update(1)


def read_images(files: raw.RawFiles) -> dict[int, str]:
    """File of every photograph, ``<number of the class>.<class>/<image>.jpg``, by its number."""
    images = {}
    for number, name in _rows(files, "CUB_200_2011/images.txt"):
        if not (number.isdecimal() and name.partition(".")[0].isdecimal()):
            raise files.damaged(
                "CUB_200_2011/images.txt", f"a line is {number} {name}; expected <number> 001.<class>/..."
            )
        images[int(number)] = name
    return images


def split_images(files: raw.RawFiles, images: dict[int, str], policy: str) -> dict[str, list[int]]:
    """Numbers of the photographs of each split."""
    if policy == "official":
        rows = _rows(files, "CUB_200_2011/train_test_split.txt")
        numbers = {image for image, is_training in rows if is_training == "1"}
        training = {image for image in images if str(image) in numbers}
    else:
        training = {image for image, name in images.items() if int(name.split(".")[0]) < FIRST_TEST_CLASS}
    members = {"train": [], "test": []}
    for image in sorted(images):
        members["train" if image in training else "test"].append(image)
    return members


def read_colours(files: raw.RawFiles, images: dict[int, str]) -> dict[int, np.ndarray]:
    """Which groups of ``COLOURS`` every photograph's bird has, by number: [6] int32 each.

    Some published lines have more columns than the others; the first three mean the same in all.
    """
    groups = {str(attribute): row for row, group in enumerate(COLOURS.values()) for attribute in group}
    colours = {str(image): np.zeros(len(COLOURS), np.int32) for image in images}
    for image, attribute, is_present in _rows(files, "attributes/image_attribute_labels.txt", 3):
        if is_present == "1" and attribute in groups and image in colours:
            colours[image][groups[attribute]] = 1
    return {image: colours[str(image)] for image in images}


def read_captions(files: raw.RawFiles, image: str) -> list[list[str]]:
    """Words of the ten captions of ``<class>/<image>.jpg``."""
    path = files.find(f"text_c10/{image.removesuffix('.jpg')}.txt")
    lines = [line for line in files.text(path).split("\n") if line.strip()]
    if len(lines) != NUM_CAPTIONS:
        raise files.damaged(path, f"{len(lines)} captions; expected {NUM_CAPTIONS}")
    return [text.split_words(line) for line in lines]


def read_picture(files: raw.RawFiles, path: str) -> np.ndarray:
    """A photograph squeezed to 64x64, in colour: [64, 64, 3] uint8."""
    return np.asarray(files.image(path, "RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _rows(files: raw.RawFiles, name: str, columns: int = 2):
    """The first columns of a table, row by row."""
    path = files.find(name)
    for number, line in enumerate(files.text(path).splitlines(), 1):
        row = line.split(None, columns)[:columns]
        if row and len(row) < columns:
            raise files.damaged(path, f"line {number} is {line!r}; expected {columns} columns or more")
        if row:
            yield row


def load(config_data, modalities=()) -> DataSet:
    """Prepares the data set if need be and reads it.

    Args:
      config_data: ``config.data``; read are ``dir`` and ``policy``.
      modalities: names of those wanted; both if empty.

    Raises:
      UserError: a field has a value that is not allowed, or files are missing or damaged.
    """
    policy = config_data.policy or "official"
    if policy not in _POLICIES:
        raise unknown_name("config.data.policy", policy, _POLICIES)
    builder = builders.prepare(Cub, policy, builders.data_directory(config_data.dir))
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
    """One example a caption: those of a photograph follow each other."""
    stored = {"image": "image", "caption": "captions"}
    arrays, labels = builders.read_split(builder, split, [stored[name] for name in names])
    inputs = {}
    for name in names:
        if name == "image":
            inputs[name] = np.repeat(arrays["image"], NUM_CAPTIONS, axis=0)
        else:
            inputs[name] = arrays["captions"].reshape(-1, CAPTION_LENGTH)
    return complete_split(inputs, np.repeat(labels, NUM_CAPTIONS, axis=0))
