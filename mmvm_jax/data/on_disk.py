"""Splits that do not fit in memory: their examples stay on disk and are read when needed."""

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from mmvm_jax.data import builders
from mmvm_jax.runtime.progress import log

PART_SIZE = 500_000_000  # bytes that TFDS collects in memory before it writes them
_AHEAD = 8  # results that are computed ahead


class StoredInputs(Mapping):
    """Inputs on disk, ``{name: StoredArray}``; ``take`` reads some examples into memory.

    Args:
      read: function of record numbers [B] and names that returns ``{name: [B, ...]}``.
      shapes: ``{name: shape of one example}``.
      rows: [N], the record of each example.
      digest: a hash of all records.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray, Iterable[str]], dict[str, np.ndarray]],
        shapes: Mapping[str, tuple[int, ...]],
        rows: np.ndarray,
        digest: bytes,
    ):
        self._read, self._shapes, self._rows, self.digest = read, shapes, rows, digest

    def __getitem__(self, name: str) -> "StoredArray":
        return StoredArray(self, name, (len(self._rows), *self._shapes[name]))

    def __iter__(self):
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def take(self, index: np.ndarray, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
        """Read the named inputs, or all, of the examples with these indices [B]: {name: [B, ...]}."""
        return self._read(self._rows[index], names or self._shapes)

    def select(self, chosen: np.ndarray) -> "StoredInputs":
        """Return the inputs of some examples, without reading them; ``chosen`` is any index of an array."""
        return StoredInputs(self._read, self._shapes, self._rows[chosen], self.digest)


class StoredArray:
    """One modality of ``StoredInputs``. Indexing its first axis, as that of an array, reads the examples."""

    def __init__(self, inputs: StoredInputs, name: str, shape: tuple[int, ...]):
        self._inputs, self._name, self.shape = inputs, name, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places) -> np.ndarray:
        rows = np.arange(len(self))[places]
        values = self._inputs.take(rows.reshape(-1), [self._name])[self._name]
        return values.reshape(*rows.shape, *self.shape[1:])


def in_parts(split: str, examples: Iterator, num_examples: int, features) -> dict[str, Iterator]:
    """Divide a split into parts of limited size, since TFDS collects a whole split in memory before it writes it.

    Args:
      split: its name, with which the names of the parts begin.
      examples: the generator of the split.
      num_examples: number of examples.
      features: of static shapes, a ``tfds.features.FeaturesDict``.

    Returns:
      {name of the part: its examples}.
    """
    per_part = max(1, PART_SIZE // _num_bytes(features))
    starts = range(0, num_examples, per_part)
    return {f"{split}_{start:09d}": itertools.islice(examples, per_part) for start in starts}


def all_parts(builder, split: str) -> str:
    """Return the expression with which TFDS reads all parts of a split."""
    parts = sorted(name for name in builder.info.splits if name.startswith(f"{split}_"))
    return "+".join(parts) or split


def _num_bytes(features) -> int:
    """Return the size of an example in memory."""
    return sum(math.prod(spec.shape) * spec.np_dtype(0).itemsize for spec in features.values())


def read_split(builder, split: str, names, memory_gb: float):
    """Read a split like ``builders.read_split``, but leave inputs on disk that exceed the memory limit.

    Args:
      builder, split, names: as for ``builders.read_split``.
      memory_gb: memory limit for the inputs of a split, in 10^9 bytes.

    Returns:
      ``{name: [N, ...]}`` or ``StoredInputs``, and the labels.
    """
    split = all_parts(builder, split)
    features = tfds.features.FeaturesDict({name: builder.info.features[name] for name in names})
    num_examples = builder.info.splits[split].num_examples
    size = num_examples * _num_bytes(features)
    if size <= memory_gb * 1e9:
        return builders.read_split(builder, split, names)
    log.info("%s: %.1f GB stay on disk (config.data.memory_gb=%g)", builder.name, size / 1e9, memory_gb)
    source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    digest = _hash_files(builder.info.splits[split].filepaths)
    _, labels = builders.read_split(builder, split, [])
    shapes = {name: features[name].shape for name in names}
    return StoredInputs(_reader_of_records(source, features), shapes, np.arange(num_examples), digest), labels


def _reader_of_records(source, features) -> Callable[[np.ndarray, Iterable[str]], dict[str, np.ndarray]]:
    """Return the function that reads serialised records, given random access to them."""

    def read(numbers: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        specs = {name: features[name] for name in names}
        arrays = {name: np.empty((len(numbers), *spec.shape), spec.np_dtype) for name, spec in specs.items()}
        for place, record in enumerate(source.__getitems__(numbers.tolist())):
            values = features.deserialize_example_np(record)
            for name, array in arrays.items():
                array[place] = values[name]
        return arrays

    return read


def read_ahead(function: Callable[[int], object], steps: range) -> Iterator:
    """Yield ``function(step)`` in order, computed ahead by one thread per core."""
    import grain.python as grain  # imported late: slow, and only splits on disk need it

    options = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=_AHEAD)
    return iter(grain.MapDataset.range(steps.start, steps.stop).map(function).to_iter_dataset(options))


def _hash_files(paths) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.digest()
