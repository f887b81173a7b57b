"""Data sets: a training and a test split of the same modalities."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmvm_jax.data.on_disk import StoredInputs
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.types import Modality


class Split(NamedTuple):
    """All examples of a split."""

    inputs: dict[str, np.ndarray] | StoredInputs  # {modality name: [N, ...]}
    present: np.ndarray  # [M, N] bool, rows in the order of the data set's modalities
    labels: np.ndarray  # [N] int32 classes, or [N, C] binary; -1 where the data set has none


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A training and a test split of the same modalities.

    Attributes:
      modalities: M of them; their order is that of the rows of every mask.
      num_classes: number of classes; 0 without labels.
      label_kind: "class", "multilabel" or "none".
      fingerprint: a short hash of all examples and labels.
      class_names: of the classes, where they have names.
      vocabularies: ``{modality name: words}``, the word of every token id.
      columns: ``{modality name: names of its columns}`` of what was given as tables with names.
      units: ``{modality name: (mean [...], scale [...])}`` of what was standardised; the original is
        x * scale + mean.
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


def complete_split(inputs: dict[str, np.ndarray], labels: np.ndarray) -> Split:
    """A split in which every modality of every example is present."""
    return Split(inputs, np.ones((len(inputs), len(labels)), bool), labels)


def without_empty(split: Split) -> Split:
    """The split without the examples of which nothing is present."""
    seen = np.any(split.present, axis=0)
    return split if seen.all() else select_examples(split, seen)


def select_examples(split: Split, chosen: np.ndarray) -> Split:
    """The examples that are ``chosen``: [N] bool, or their numbers."""
    if isinstance(split.inputs, StoredInputs):
        inputs = split.inputs.select(chosen)
    else:
        inputs = {name: array[chosen] for name, array in split.inputs.items()}
    return Split(inputs, split.present[:, chosen], split.labels[chosen])


def with_validation(dataset: DataSet, share: float) -> DataSet:
    """The data set with a random share of its training examples in place of the test split.

    What is chosen by it (a method, beta) is chosen without the test examples. Standardised data keep their units.

    Raises:
      UserError: either would be empty.
    """
    if not share:
        return dataset
    count = len(dataset.train.labels)
    held_out = np.zeros(count, bool)
    held_out[np.random.default_rng(0).permutation(count)[: round(share * count)]] = True
    if held_out.all() or not held_out.any():
        raise UserError(f"config.data.validation is {share}; allowed: a share of {count} training examples and a rest")
    train, validation = (select_examples(dataset.train, rows) for rows in (~held_out, held_out))
    digest = hashlib.blake2b(f"{dataset.fingerprint} {share}".encode(), digest_size=8).hexdigest()
    return dataclasses.replace(dataset, train=train, test=validation, fingerprint=digest)


def select_modalities(offered: Sequence[Modality], names: Sequence[str]) -> tuple[Modality, ...]:
    """The offered modalities of these names, in the order of the names; all of them if no name is given.

    Raises:
      UserError: a name is not offered or occurs twice.
    """
    by_name = {modality.name: modality for modality in offered}
    # On a command line config.modalities=a,b is one name.
    names = [part for name in names for part in ([name] if name in by_name else name.split(","))]
    for name in names:
        if name not in by_name:
            raise unknown_name("config.modalities", name, by_name)
    if len(set(names)) < len(names):
        raise UserError(f"config.modalities is {', '.join(names)}; allowed: each name once")
    return tuple(by_name[name] for name in names or by_name)


def fingerprint(*splits: Split) -> str:
    """A hash of all examples and labels, not of what is present: 16 hexadecimal digits.

    That of examples on disk is another one than that of the same examples in memory.
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
    """Return what stands before an array in what a fingerprint is the hash of."""
    return f"{name} {dtype} {shape}".encode()
