"""Reading of the splits of a user's own data: into memory, or, where they need too much, left where they are."""

import collections
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from mmvm_jax.data import units
from mmvm_jax.data.dataset import Split, array_heading
from mmvm_jax.data.description import as_modality
from mmvm_jax.data.on_disk import StoredInputs
from mmvm_jax.data.rows import MemoryRows, NpzRows
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Modality

Units = Mapping[str, tuple[np.ndarray, np.ndarray]]


def measure(rows, name: str, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of the examples that are ``members`` [N]."""
    blocks = (block[members[start : start + len(block)]] for start, block in rows.array_blocks(name))
    return units.measure(blocks, rows.headers[name].shape[1:], rows.headers[name].dtype)


class SplitReader:
    """Reads splits, and hashes their values before standardisation, which may round differently on other machines.

    Args:
      rows: the arrays.
      modalities: those to read.
      present: [M, N] bool.
      scales: ``{name: (mean, scale)}`` of standardised modalities.
      memory_gb: memory limit for the inputs of a split, in 10^9 bytes.
    """

    def __init__(
        self,
        rows: MemoryRows | NpzRows,
        modalities: tuple[Modality, ...],
        present: np.ndarray,
        scales: Units,
        memory_gb: float,
    ):
        self._rows, self._scales, self._memory_gb = rows, scales, memory_gb
        self._modalities = modalities
        self._present = dict(zip((modality.name for modality in modalities), present, strict=True))

    def read(self, labels: np.ndarray, members: np.ndarray, digest) -> Split:
        """Read the examples that are ``members`` [N], and update ``digest`` with them like ``dataset.fingerprint``.

        Raises:
          UserError: a value does not fit its modality, or the split needs too much memory and is in an .npz file.
        """
        count = int(members.sum())
        is_stored = self._must_stay(count)
        inputs: dict[str, np.ndarray] = {}
        for modality in sorted(self._modalities, key=lambda one: one.name):
            digest.update(array_heading(modality.name, self._dtype(modality), (count, *modality.shape)))
            blocks = self._blocks(modality, members, digest)
            if is_stored:
                collections.deque(blocks, maxlen=0)  # checks and hashes them
            else:
                inputs[modality.name] = self._filled(modality, count, blocks)
        labels = labels[members]
        digest.update(array_heading("labels", labels.dtype, labels.shape))
        digest.update(np.ascontiguousarray(labels))
        present = np.stack([self._present[modality.name][members] for modality in self._modalities])
        if is_stored:
            shapes = {modality.name: modality.shape for modality in self._modalities}
            return Split(StoredInputs(self._take, shapes, np.flatnonzero(members), digest.digest()), present, labels)
        return Split({modality.name: inputs[modality.name] for modality in self._modalities}, present, labels)

    def _must_stay(self, count: int) -> bool:
        """Return whether so many examples need more memory than allowed."""
        sizes = [math.prod(modality.shape) * self._dtype(modality).itemsize for modality in self._modalities]
        needed = count * sum(sizes) / 1e9
        if needed <= self._memory_gb:
            return False
        if isinstance(self._rows, NpzRows):
            raise UserError(
                f"config.data.memory_gb is {self._memory_gb:g}, but {count} examples of {self._rows.path} need "
                f"{needed:.3g}; allowed: {math.ceil(needed)} or more; or a folder with one .npy file per array, whose "
                "examples stay on disk"
            )
        log.info("own_data: %d examples (%.1f GB) are read when needed (config.data.memory_gb)", count, needed)
        return True

    def _filled(self, modality: Modality, count: int, blocks: Iterator[np.ndarray]) -> np.ndarray:
        array, done = np.empty((count, *modality.shape), self._dtype(modality)), 0
        for values in blocks:
            array[done : done + len(values)] = values
            done += len(values)
        return array

    def _blocks(self, modality: Modality, members: np.ndarray, digest) -> Iterator[np.ndarray]:
        """Yield the inputs of the examples that are ``members``, block by block."""
        name, done, warned = modality.name, 0, False
        for start, block in self._rows.array_blocks(name):
            theirs = members[start : start + len(block)]
            there = self._present[name][start : start + len(block)][theirs]
            values = as_modality(modality, block[theirs], there, self._rows.columns)
            digest.update(np.ascontiguousarray(values, self._dtype(modality)))
            values = self._standardised(name, values, there)
            if name in self._scales:
                warned = warned or units.warn_of_codes(name, values[..., modality.real_entries], done)
            yield values
            done += len(values)

    def _take(self, numbers: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Read the named inputs of the examples with these numbers, [B]."""
        inputs, by_name = {}, {modality.name: modality for modality in self._modalities}
        for name in names:
            there = self._present[name][numbers]
            values = as_modality(by_name[name], self._rows.take(name, numbers), there, self._rows.columns)
            inputs[name] = self._standardised(name, values, there).astype(self._dtype(by_name[name]))
        return inputs

    def _standardised(self, name: str, values: np.ndarray, there: np.ndarray) -> np.ndarray:
        return units.apply(values, there, self._scales[name]) if name in self._scales else values

    def _dtype(self, modality: Modality) -> np.dtype:
        """Return the type of a modality's inputs."""
        given = self._rows.headers[modality.name].dtype.kind
        if modality.kind == "tokens" or (modality.kind == "counts" and not modality.missing_entries):
            return np.dtype("i4")
        return np.dtype("u1" if modality.kind == "image" and given not in "fb" else "f4")
