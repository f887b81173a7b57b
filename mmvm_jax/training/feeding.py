"""How training examples come to the devices: a split in memory lies on all of them, one on disk streams past."""

import jax.numpy as jnp
import numpy as np

from mmvm_jax.data.batches import Batches, Order
from mmvm_jax.data.dataset import Split
from mmvm_jax.data.on_disk import StoredInputs
from mmvm_jax.runtime import devices, processes
from mmvm_jax.types import Batch


class Resident:
    """The split lies on every device; only the numbers of its examples travel."""

    def __init__(self, split: Split, batch_size: int, seed: int):
        self.position = Order(len(split.labels), batch_size, seed)
        self._share = processes.share(batch_size)
        self.table = self.place(split)

    @staticmethod
    def place(split: Split):
        """The split, on every device: what ``read`` reads."""
        return devices.on_all_devices((split.inputs, split.present, split.labels))

    def take(self, num_steps: int) -> list[np.ndarray]:
        """What the next steps read, this process's share of it."""
        return [next(self.position)[self._share] for _ in range(num_steps)]

    @staticmethod
    def read(table, index) -> Batch:
        """The batch of one step, on a device."""
        inputs, present, labels = table
        inputs = {name: jnp.take(array, index, axis=0) for name, array in inputs.items()}
        return Batch(inputs, jnp.take(present, index, axis=1), index, jnp.take(labels, index, axis=0))


class Streamed:
    """Batches are read from the disk ahead of their steps."""

    table = ()

    def __init__(self, split: Split, batch_size: int, seed: int):
        self.position = Batches(split, batch_size, seed, processes.share(batch_size))

    def take(self, num_steps: int) -> list[Batch]:
        """What the next steps read, this process's share of it."""
        return [next(self.position) for _ in range(num_steps)]

    @staticmethod
    def read(table, batch: Batch) -> Batch:
        """The batch of one step, on a device."""
        del table
        return batch


def feed(split: Split, batch_size: int, seed: int) -> Resident | Streamed:
    """The training examples in an order that the seed determines.

    Raises:
      UserError: the split holds fewer examples than a batch.
    """
    kind = Streamed if isinstance(split.inputs, StoredInputs) else Resident
    return kind(split, batch_size, seed)
