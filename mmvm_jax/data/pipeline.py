"""Data sets in memory and the batches drawn from them."""

from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np

from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.types import Batch, Modality


class Split(NamedTuple):
    """All examples of a split."""

    inputs: dict[str, np.ndarray]  # {modality name: [N, ...]}
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
      units: ``{modality name: (mean [...], scale [...])}`` of what was standardised: original = x * scale + mean.
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


def complete_split(inputs: dict[str, np.ndarray], labels: np.ndarray) -> Split:
    """A split in which every modality of every example is present."""
    return Split(inputs, np.ones((len(inputs), len(labels)), bool), labels)


def select_modalities(offered: Sequence[Modality], names: Sequence[str]) -> tuple[Modality, ...]:
    """The offered modalities of these names, in the order of the names; all of them if no name is given.

    Raises:
      UserError: a name is not offered or occurs twice.
    """
    by_name = {modality.name: modality for modality in offered}
    for name in names:
        if name not in by_name:
            raise unknown_name("config.modalities", name, by_name)
    if len(set(names)) < len(names):
        raise UserError(f"config.modalities is {', '.join(names)}; allowed: each name once")
    return tuple(by_name[name] for name in names or by_name)


def fingerprint(*splits: Split) -> str:
    """A hash of all examples and labels, not of what is present: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for split in splits:
        for name, array in [*sorted(split.inputs.items()), ("labels", split.labels)]:
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


class Batches:
    """Full batches of a split without end, every epoch in a new order that the seed determines.

    Where the batch size does not divide the number of examples, an epoch leaves out its last ones.

    Args:
      split: what to draw from.
      batch_size: 1 to the number of examples.
      seed: of all the orders.

    Raises:
      UserError: the split holds fewer examples than a batch.
    """

    def __init__(self, split: Split, batch_size: int, seed: int):
        if not 1 <= batch_size <= len(split.labels):
            raise UserError(
                f"config.train.batch_size is {batch_size}; allowed: 1 to {len(split.labels)}, "
                "the number of examples in the split"
            )
        self._split, self._batch_size = split, batch_size
        self.set_state({"epoch": 0, "position": 0, "seed": seed})

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return len(self._split.labels) // self._batch_size

    def get_state(self) -> dict[str, int]:
        """Where the next batch lies, as plain numbers; its position counts the epoch's earlier batches."""
        return {"epoch": self._epoch, "position": self._position, "seed": self._seed}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to where ``get_state`` was called, on any iterator of equal split and batch size."""
        self._seed, self._position = state["seed"], state["position"]
        self._start_epoch(state["epoch"])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = self._position * self._batch_size
        batch = _gather(self._split, self._order[start : start + self._batch_size])
        self._position += 1
        if self._position == self.steps_per_epoch:
            self._position = 0
            self._start_epoch(self._epoch + 1)
        return batch

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._split.labels))
        self._order = order.astype(np.int32)


def evaluation_batches(split: Split, batch_size: int) -> Iterator[tuple[Batch, int]]:
    """The whole split in order, with the number of rows that count in each batch.

    Every batch has ``batch_size`` rows; the last one repeats its first rows where too few are left.
    """
    num_examples = len(split.labels)
    for start in range(0, num_examples, batch_size):
        rows = np.arange(start, min(start + batch_size, num_examples), dtype=np.int32)
        yield _gather(split, np.resize(rows, batch_size)), len(rows)


def _gather(split: Split, index: np.ndarray) -> Batch:
    inputs = {name: np.take(array, index, axis=0) for name, array in split.inputs.items()}
    return Batch(inputs, np.take(split.present, index, axis=1), index, np.take(split.labels, index, axis=0))
