"""Data sets, which consist of a training and a test split, and operations on splits."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmvm_jax.data import on_disk
from mmvm_jax.data.columns import Levels
from mmvm_jax.data.on_disk import StoredInputs
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.types import Modality

_AT_ONCE = 1024  # examples


class Split(NamedTuple):
    """All examples of a split."""

    inputs: dict[str, np.ndarray] | StoredInputs  # {modality name: [N, ...]}
    present: np.ndarray  # [M, N] bool, rows in the order of the data set's modalities
    labels: np.ndarray  # [N] int32 classes, or [N, C] binary; -1 where the data set has none


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A training and a test split of the same modalities.

    Attributes:
      modalities: M of them, in the order of the rows of every mask.
      num_classes: number of classes; 0 without labels.
      label_kind: "class", "multilabel" or "none".
      fingerprint: a short hash of all examples and labels.
      class_names: names of the classes, if known.
      vocabularies: ``{modality name: words}``, the word of every token id.
      columns: ``{modality name: names of its columns}`` of modalities that were given as tables.
      levels: ``{modality name: {column: its categories in the order of their numbers}}`` of tables with text.
      units: ``{modality name: (mean [...], scale [...])}`` of standardised modalities: original = x * scale + mean.
    """

    modalities: tuple[Modality, ...]
    train: Split
    test: Split
    num_classes: int
    label_kind: str
    fingerprint: str
    class_names: tuple[str, ...] = ()
    vocabularies: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    units: dict[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    levels: dict[str, Levels] = dataclasses.field(default_factory=dict)


def complete_split(inputs: dict[str, np.ndarray], labels: np.ndarray) -> Split:
    """Return a split in which every modality of every example is present."""
    return Split(inputs, np.ones((len(inputs), len(labels)), bool), labels)


def read_complete_splits(builder, modalities: Sequence[Modality], memory_gb: float = math.inf) -> tuple[Split, Split]:
    """Read the training and the test split of a builder, in which every modality of every example is present."""
    names = [modality.name for modality in modalities]
    train, test = (complete_split(*on_disk.read_split(builder, name, names, memory_gb)) for name in ("train", "test"))
    return train, test


def split_stratified(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Split examples at random, 80 to 20 within each class: {split: indices in random order}."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rank_in_class = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank_in_class[members] = np.arange(len(members)) / len(members)
    is_training = rank_in_class[order] < 0.8
    return {"train": order[is_training], "test": order[~is_training]}


def without_empty(split: Split) -> Split:
    """Return the split without the examples that have no modality."""
    seen = np.any(split.present, axis=0)
    return split if seen.all() else select_examples(split, seen)


def select_examples(split: Split, chosen: np.ndarray) -> Split:
    """Return the examples that are ``chosen``, [N] bool or indices."""
    if isinstance(split.inputs, StoredInputs):
        inputs = split.inputs.select(chosen)
    else:
        inputs = {name: array[chosen] for name, array in split.inputs.items()}
    return Split(inputs, split.present[:, chosen], split.labels[chosen])


def blocks(inputs, present: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the present examples of a modality, block by block: [n, ...] of [N, ...], in memory or on disk."""
    for start in range(0, len(present), _AT_ONCE):
        yield inputs[start : start + _AT_ONCE][present[start : start + _AT_ONCE]]


def hold_out(split: Split, share: float, field: str) -> tuple[Split, Split]:
    """Return the split without a random share of its examples, and these examples.

    Raises:
      UserError: one of the two would be empty; names the ``field`` of the configuration.
    """
    count = len(split.labels)
    held_out = np.zeros(count, bool)
    held_out[np.random.default_rng(0).permutation(count)[: round(share * count)]] = True
    if held_out.all() or not held_out.any():
        raise UserError(f"{field} is {share}; allowed: a share of {count} training examples and a rest")
    return select_examples(split, ~held_out), select_examples(split, held_out)


def with_validation(dataset: DataSet, share: float) -> DataSet:
    """Return the data set with a random share of its training examples in place of the test split.

    It serves to choose a method or beta without the test examples. Standardised data keep their units.

    Raises:
      UserError: one of the two splits would be empty.
    """
    if not share:
        return dataset
    train, validation = hold_out(dataset.train, share, "config.data.validation")
    digest = hashlib.blake2b(f"{dataset.fingerprint} {share}".encode(), digest_size=8).hexdigest()
    return dataclasses.replace(dataset, train=train, test=validation, fingerprint=digest)


def select_modalities(offered: Sequence[Modality], names: Sequence[str]) -> tuple[Modality, ...]:
    """Return the offered modalities with these names, in the order of the names; all if there are no names.

    Raises:
      UserError: a name is not offered, or occurs twice.
    """
    by_name = {modality.name: modality for modality in offered}
    # On the command line, config.modalities=a,b gives the single name "a,b".
    names = [part for name in names for part in ([name] if name in by_name else name.split(","))]
    for name in names:
        if name not in by_name:
            raise unknown_name("config.modalities", name, by_name)
    if len(set(names)) < len(names):
        raise UserError(f"config.modalities is {', '.join(names)}; allowed: each name once")
    return tuple(by_name[name] for name in names or by_name)


def fingerprint(*splits: Split) -> str:
    """Return a hash of all examples and labels, but not of the masks: 16 hexadecimal digits.

    The hash of examples on disk differs from that of the same examples in memory.
    """
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        arrays = split.inputs
        if isinstance(split.inputs, StoredInputs):
            arrays = {name: np.frombuffer(split.inputs.digest, np.uint8) for name in split.inputs}
        for name, array in [*sorted(arrays.items()), ("labels", split.labels)]:
            digest.update(array_heading(name, array.dtype, array.shape))
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def array_heading(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return the bytes that precede an array's values in the input of a fingerprint."""
    return f"{name} {dtype} {shape}".encode()
