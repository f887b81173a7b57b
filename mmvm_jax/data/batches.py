"""Batches of a split: in shuffled order for training, in stored order for evaluation."""

import functools
from collections.abc import Iterator

import numpy as np

from mmvm_jax.data.dataset import Split
from mmvm_jax.data.on_disk import StoredInputs, read_ahead
from mmvm_jax.errors import UserError
from mmvm_jax.types import Batch

_ENDLESS = 2**62  # batches


class Order:
    """Endless iterator over the examples of each batch. Every epoch has a new order, determined by the seed.

    If the number of examples is not a multiple of the batch size, each epoch drops its last examples.

    Args:
      num_examples: of the split.
      batch_size: 1 to the number of examples.
      seed: of the orders of all epochs.

    Raises:
      UserError: the split has fewer examples than a batch.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int):
        if not 1 <= batch_size <= num_examples:
            raise UserError(
                f"config.train.batch_size is {batch_size}; allowed: 1 to {num_examples}, "
                "the number of examples in the split"
            )
        self._num_examples, self._batch_size = num_examples, batch_size
        self.step = 0  # of the next batch
        self._restart(seed)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self._num_examples // self._batch_size

    def get_state(self) -> dict[str, int]:
        """Return the position of the next batch: its epoch, the number of earlier batches in it, and the seed."""
        epoch, position = divmod(self.step, self.steps_per_epoch)
        return {"epoch": epoch, "position": position, "seed": self._seed}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to the position at which ``get_state`` was called, with the same number of examples and batch size."""
        self.step = state["epoch"] * self.steps_per_epoch + state["position"]
        self._restart(state["seed"])

    def _restart(self, seed: int) -> None:
        self._seed = seed
        self._examples = functools.lru_cache(maxsize=2)(self._draw)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        self.step += 1
        return self.batch(self.step - 1)

    def batch(self, step: int) -> np.ndarray:
        """Return the indices of the examples of a step: [B] int32."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self._batch_size
        return self._examples(epoch)[start : start + self._batch_size]

    def _draw(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng([self._seed, epoch]).permutation(self._num_examples)
        return order.astype(np.int32)


class Batches:
    """Endless iterator over the batches of a split in the ``Order`` of its examples, read ahead from disk.

    Args:
      split: the examples.
      batch_size: 1 to the number of examples.
      seed: of the orders of all epochs.
      rows: the rows of every batch to return.

    Raises:
      UserError: the split has fewer examples than a batch.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, rows: slice = slice(None)):
        self._split, self._rows = split, rows
        self.order = Order(len(split.labels), batch_size, seed)
        self.set_state(self.order.get_state())

    def get_state(self) -> dict[str, int]:
        """Return the state of the ``Order``."""
        return self.order.get_state()

    def set_state(self, state: dict[str, int]) -> None:
        """Go to the position at which ``get_state`` was called, by any iterator with the same split and batch size."""
        self.order.set_state(state)
        batch = lambda step: gather(self._split, self.order.batch(step)[self._rows])
        self._batches = _map_steps(self._split, batch, range(self.order.step, _ENDLESS))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.order.step += 1
        return batch


def some_rows(count: int, most: int) -> np.ndarray:
    """Choose up to ``most`` of ``count`` rows, at random because files are often sorted by class: sorted indices."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def evaluation_batches(split: Split, batch_size: int, rows: slice = slice(None)) -> Iterator[tuple[Batch, int]]:
    """Yield the whole split in order, as batches with the number of their valid rows.

    Every batch has ``batch_size`` rows; the last one is filled up by repeating its own rows. Of each batch only
    ``rows`` are read and returned, while the number of valid rows is that of the whole batch.
    """
    num_examples = len(split.labels)

    def batch(number: int) -> tuple[Batch, int]:
        start = number * batch_size
        index = np.arange(start, min(start + batch_size, num_examples), dtype=np.int32)
        return gather(split, np.resize(index, batch_size)[rows]), len(index)

    return _map_steps(split, batch, range(-(-num_examples // batch_size)))


def _map_steps(split: Split, function, steps: range) -> Iterator:
    """Apply ``function`` to every step, ahead of time if it reads from disk."""
    if isinstance(split.inputs, StoredInputs):
        return read_ahead(function, steps)
    return map(function, steps)


def gather(split: Split, index: np.ndarray) -> Batch:
    """Return the batch of the examples with these indices, [B]."""
    if isinstance(split.inputs, StoredInputs):
        inputs = split.inputs.take(index)
    else:
        inputs = {name: np.take(array, index, axis=0) for name, array in split.inputs.items()}
    return Batch(inputs, np.take(split.present, index, axis=1), index, np.take(split.labels, index, axis=0))
