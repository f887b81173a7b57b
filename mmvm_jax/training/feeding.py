"""Feed training examples to the devices: splits in memory are copied to them once, splits on disk are streamed."""

import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.batches import Batches, Order
from mmvm_jax.data.dataset import Split
from mmvm_jax.data.on_disk import StoredInputs
from mmvm_jax.runtime import devices, processes
from mmvm_jax.types import Batch


class Resident:
    """A split in memory. Every device has a copy, and a step is sent only the indices of its examples."""

    def __init__(self, split: Split, batch_size: int, seed: int):
        self.position = Order(len(split.labels), batch_size, seed)
        self._share = processes.share(batch_size)
        self.table = self.place(split)

    @staticmethod
    def place(split: Split):
        """Copy the split to every device, for ``read``."""
        return devices.replicate((split.inputs, split.present, split.labels))

    def take(self, num_steps: int) -> list[np.ndarray]:
        """Return the inputs of the next steps, one item per step: this process's share."""
        return [next(self.position)[self._share] for _ in range(num_steps)]

    @staticmethod
    def read(table, index) -> Batch:
        """Return the batch of one step, on a device."""
        inputs, present, labels = table
        inputs = {name: jnp.take(array, index, axis=0) for name, array in inputs.items()}
        return Batch(inputs, jnp.take(present, index, axis=1), index, jnp.take(labels, index, axis=0))


class Streamed:
    """A split on disk, whose batches are read ahead of their steps."""

    table = ()

    def __init__(self, split: Split, batch_size: int, seed: int):
        self.position = Batches(split, batch_size, seed, processes.share(batch_size))

    def take(self, num_steps: int) -> list[Batch]:
        """Return the inputs of the next steps, one item per step: this process's share."""
        return [next(self.position) for _ in range(num_steps)]

    @staticmethod
    def read(table, batch: Batch) -> Batch:
        """Return the batch of one step, on a device."""
        del table
        return batch


def feed(split: Split, batch_size: int, seed: int) -> Resident | Streamed:
    """Return the training examples in an order that the seed determines.

    Raises:
      UserError: the split holds fewer examples than a batch.
    """
    kind = Streamed if isinstance(split.inputs, StoredInputs) else Resident
    return kind(split, batch_size, seed)
