"""UCI Multiple Features: six descriptions of 2,000 handwritten digits."""

import numpy as np
import tensorflow_datasets as tfds

from mmvm_jax.data import builders, raw, tables, units
from mmvm_jax.data.dataset import DataSet, complete_split, fingerprint, select_modalities
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

SPLITS = ("train", "test")
SEED = 0
TRAINING_SHARE = 0.8
NUM_EXAMPLES = 2000
PER_CLASS = 200
# Modality: its number of features, and what they are.
VIEWS = {
    "fou": 76,  # Fourier coefficients of the outline
    "fac": 216,  # profile correlations
    "kar": 64,  # Karhunen-Loeve coefficients
    "pix": 240,  # pixel averages in windows of 2x3
    "zer": 47,  # Zernike moments
    "mor": 6,  # morphology
}
MODALITIES = tuple(Modality(name, (size,), "vector", "normal") for name, size in VIEWS.items())
ORIGIN = raw.Origin(
    files=", ".join(f"mfeat-{name}" for name in VIEWS) + " (or with a heading and labels, mfeat-fou.csv, ...)",
    source="Multiple Features (Duin, 1998), UCI Machine Learning Repository, doi 10.24432/C5HC70",
    licence="CC BY 4.0",
)


class UciMultipleFeatures(tfds.core.GeneratorBasedBuilder):
    """Six vectors for each digit."""

    name = "uci_multiple_features"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="stratified", description="80 to 20 within each class.")]

    def _info(self) -> tfds.core.DatasetInfo:
        return builders.stored_info(self, {name: ((size,), np.float32) for name, size in VIEWS.items()})

    def _split_generators(self, dl_manager):
        del dl_manager
        files = raw.RawFiles(self.name, raw.data_root(self), ORIGIN)
        files.find_all(map("mfeat-{}".format, VIEWS), lambda name: files.find_optional(*_endings(name)))
        views, labels = {}, None
        for name in VIEWS:
            views[name], theirs, path = read_view(files, name)
            if labels is not None and (labels != theirs).any():
                raise files.damaged(path, "its labels differ from those of the other files")
            labels = theirs
        members = split_stratified(labels)
        return {split: self._generate_examples(split, views, labels, members[split]) for split in SPLITS}

    def _generate_examples(self, split: str, views, labels, members):
        with Progress(len(members), "examples", f"preparing {self.name}, {split}") as progress:
            for row, member in enumerate(members):
                yield row, {**{name: view[member] for name, view in views.items()}, "label": labels[member]}
                progress.update(1)


def _endings(name: str) -> list[str]:
    """Names that the file of a description may have."""
    return [f"mfeat-{name.removeprefix('mfeat-')}{ending}" for ending in ("", ".csv", ".txt", ".dat")]


def read_view(files: raw.RawFiles, name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """One description of all digits: [2000, features] float32, their classes [2000] int32, and the path."""
    path = files.find(*_endings(name))
    width = VIEWS[name]
    lines = [row for _, row in tables.rows(files, path)]
    if lines and (lines[0][:3] == ["0", "1", "2"] or not _is_number(lines[0][-1])):
        lines = lines[1:]  # below a heading, which may number the columns
    try:
        table = np.array(lines, np.float64)
        if table.ndim == 2 and table.shape[1] in (width + 1, width + 2):  # the class, after an index perhaps
            table, labels = table[:, -1 - width : -1], table[:, -1].astype(np.int32)
            labels -= labels.min()
        else:  # 200 rows a class, in order
            labels = np.arange(len(table), dtype=np.int32) // PER_CLASS
    except ValueError as error:
        raise files.damaged(path, error) from error
    table = table.astype(np.float32)
    if table.shape != (NUM_EXAMPLES, VIEWS[name]) or not np.isfinite(table).all():
        expected = f"[{NUM_EXAMPLES}, {VIEWS[name]}] of numbers"
        raise files.damaged(path, f"a table of shape {list(table.shape)}; expected {expected}")
    return table, labels, path


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def split_stratified(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Divides the examples at random, 80 to 20 within each class: their places by split, in random order."""
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(labels))
    rank_in_class = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank_in_class[members] = np.arange(len(members)) / len(members)
    is_training = rank_in_class[order] < TRAINING_SHARE
    return {"train": order[is_training], "test": order[~is_training]}


def load(config_data, modalities=()) -> DataSet:
    """Prepares the data set if need be, reads it, and standardises all features by the training examples.

    Args:
      config_data: ``config.data``; read is ``dir``.
      modalities: names of those wanted; all six if empty.

    Raises:
      UserError: files are missing or damaged.
    """
    chosen = select_modalities(MODALITIES, modalities)
    builder = builders.prepare(UciMultipleFeatures, "stratified", builders.data_directory(config_data.dir))
    names = [modality.name for modality in chosen]
    train, test = (complete_split(*builders.read_split(builder, split, names)) for split in SPLITS)
    train, test, scales = units.standardise(train, test, {name: row for row, name in enumerate(names)})
    return DataSet(chosen, train, test, 10, "class", fingerprint(train, test), units=scales)
