"""A user's own data: one .npz file with one array per modality.

    <name>           [N, ...]: the modality's examples
    <name>__present  [N]: whether an example has the modality. Optional: by default, examples with only NaN lack it
    labels           [N]: classes as integers or names, with -1 or NaN for unknown; or [N, C]: 0 or 1. Optional
    split            [N]: 0 or "train", 1 or "test". Optional: by default, 80 to 20 at random

The kind of an array is inferred from its type, shape and values. It is logged, and config.data.kinds overrides it:

    image   integers (0 to 255), real numbers (0 to 1) or booleans, with three axes (grey) or four (channels last).
            Real numbers with three axes, of which one side is more than four times the other, are series: vectors
    tokens  integers [N, T] with T >= 5 that look padded: at least half of the rows end with the same id, and no other
            id follows it in any row. Set shorter sequences, and sequences of equal length, by config.data.kinds. The
            first padding id marks the end, which is learned; the following ones are ignored
    counts  other non-negative integers with two axes and a mean of 3 or less. Set larger counts by config.data.kinds,
            since most integers of their size are measurements
    vector  everything else; standardised with the training examples

Arrays of text, of dates and of integers called ids are left out. ``config.modalities`` selects modalities of a file.
"""

import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from mmvm_jax.data import units
from mmvm_jax.data.arrays import (
    MASK,
    RESERVED,
    as_kind,
    check_axes,
    check_levels,
    common_length,
    modality_names,
    read_presence,
)
from mmvm_jax.data.dataset import DataSet, Split, array_heading, select_modalities
from mmvm_jax.data.description import Description
from mmvm_jax.data.kinds import LIKELIHOODS, Facts, check_inferred, find_padding, infer_kind, read_facts
from mmvm_jax.data.labels import read_labels, read_split
from mmvm_jax.data.rows import MemoryRows, NpzRows
from mmvm_jax.errors import Range, UserError, unknown_name
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Modality

# The default beta is 0.25. Normal and Laplace likelihoods have a scale that beta acts on; counts have none, and overfit
# with a beta below 1 (docs/choosing.md).
_WEIGHTS = {"counts": 0.25}
_WEIGHT = Range(1e-6, 1e6)
_FAR_COUNTS = 10  # a count beyond this multiple of the 99.9 % quantile is ignored in the mean rate
_COUNTS_AT_ONCE = 1024  # examples


def load(config_data, modalities=()) -> DataSet:
    """Read the file ``config.data.path``; otherwise like ``from_arrays``."""
    return _from_rows(NpzRows(config_data.path, "config.data.path"), config_data, modalities)


def from_arrays(arrays: Mapping, config_data, modalities=(), like: Description | None = None) -> DataSet:
    """Return the data set of arrays in memory, and log the kinds assigned to them.

    Args:
      arrays: by name, as described above.
      config_data: ``config.data``; reads ``kinds`` and ``likelihoods``.
      modalities: names of the modalities to load; all if empty.
      like: description of the training data of a model, whose modalities and units are used instead of new ones.

    Raises:
      UserError: an array or a field is not as described above.
    """
    return _from_rows(MemoryRows(arrays), config_data, modalities, like)


def _from_rows(rows: MemoryRows | NpzRows, config_data, modalities, like: Description | None = None) -> DataSet:
    """Return the data set of ``rows``, which are read in blocks, so that memory holds little more than the result."""
    names = modality_names(rows.headers, modalities)
    length = common_length(rows.headers, names)
    present = {name: read_presence(rows, name, length) for name in names}
    facts = {name: read_facts(rows, name, present[name]) for name in names}
    chosen = select_modalities(_modalities(rows, facts, present, config_data), modalities)
    labels, class_names, num_classes, label_kind = read_labels(_optional(rows, "labels"), length)
    present = np.stack([present[modality.name] for modality in chosen])
    members = _members([m.name for m in chosen], present, read_split(_optional(rows, "split"), length))
    scales = like.units if like else _measure_vectors(rows, chosen, present & members[0])
    digest = hashlib.blake2b(digest_size=8)
    train, test = (_read(rows, chosen, present, labels, theirs, scales, digest) for theirs in members)
    chosen = (
        like.modalities if like else tuple(_with_rates(modality, train, row) for row, modality in enumerate(chosen))
    )
    dataset = DataSet(
        chosen,
        train,
        test,
        num_classes,
        label_kind,
        digest.hexdigest(),
        class_names=class_names,
        units=scales,
        columns={m.name: rows.columns[m.name] for m in chosen if m.name in rows.columns},
    )
    _log_summary(dataset)
    return dataset


def _measure_vectors(rows, modalities, present: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the units of all vectors, from the examples that are ``present`` [M, N]."""
    vectors = [(one.name, row) for one, row in zip(modalities, present) if one.kind == "vector"]
    return {name: _measure(rows, name, row) for name, row in vectors}


def _optional(rows, name: str) -> np.ndarray | None:
    return rows.read(name) if name in rows.headers else None


def _modalities(rows, facts: dict[str, Facts], present, config_data) -> list[Modality]:
    """Return the modalities of the arrays, in their order."""
    names = [name for name in rows.headers if name not in RESERVED and not name.endswith(MASK)]
    given = _parse("kinds", config_data.kinds, dict.fromkeys(names, tuple(LIKELIHOODS)))
    kinds = {name: given.get(name) or infer_kind(facts[name]) for name in facts}
    any_kind = tuple(sorted({likelihood for allowed in LIKELIHOODS.values() for likelihood in allowed}))
    allowed = {name: LIKELIHOODS[kinds[name]] if name in kinds else any_kind for name in names}
    likelihoods = _parse("likelihoods", config_data.likelihoods, allowed)
    weights = _parse_weights(config_data.weights, names)
    offered = []
    for name, kind in kinds.items():
        check_axes(name, facts[name].shape, kind)
        if name not in given:
            check_inferred(name, facts[name], kind)
        if kind == "image":
            check_levels(name, facts[name].dtype, facts[name].highest)
        modality = _modality(name, facts[name], kind, likelihoods.get(name, allowed[name][0]))
        if kind == "tokens":
            padding = find_padding(rows.read(name)[present[name]])
            modality = dataclasses.replace(modality, padding=padding, end=padding)
        offered.append(dataclasses.replace(modality, weight=weights.get(name, _WEIGHTS.get(kind, 1.0))))
    return offered


def _modality(name: str, facts: Facts, kind: str, likelihood: str) -> Modality:
    shape = facts.shape[1:]
    if kind == "image":
        grey = len(shape) == 2
        shape = (*shape, 1) if grey else shape
        return Modality(name, shape, kind, likelihood, scale=0.75, without_channels=grey)
    return Modality(name, shape, kind, likelihood, vocabulary_size=int(facts.highest) + 1 if kind == "tokens" else 0)


def _parse(field: str, text: str, allowed: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Parse ``name=value,name=value``, with values of a table."""
    chosen = dict(_pairs(field, text, allowed))
    for name, value in chosen.items():
        if value not in allowed[name]:
            raise unknown_name(f"config.data.{field} for '{name}'", value, allowed[name])
    return chosen


def _parse_weights(text: str, names: Sequence[str]) -> dict[str, float]:
    """Parse ``name=weight,name=weight``."""
    weights = {}
    for name, value in _pairs("weights", text, names):
        try:
            weights[name] = float(value)
        except ValueError as error:
            allowed = _WEIGHT.allowed
            raise UserError(f"config.data.weights for '{name}' is {value!r}; allowed: {allowed}") from error
        _WEIGHT.check(f"config.data.weights for '{name}'", weights[name])
    return weights


def _pairs(field: str, text: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of ``name=value,name=value``."""
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = map(str.strip, part.partition("="))
        if name not in names:
            raise unknown_name(f"the modality in config.data.{field}", name, names)
        yield name, value


def _members(names, present: np.ndarray, is_test: np.ndarray) -> list[np.ndarray]:
    """Return masks [N] of the training and the test split, without the examples that have no modality."""
    splits, some = [], present.any(axis=0)
    for name, theirs in (("training", ~is_test), ("test", is_test)):
        if empty := (theirs & ~some).sum():
            log.info("own_data: %d %s examples have no modality and are left out", empty, name)
        if not (theirs & some).any():
            raise UserError(f"the {name} split is empty; allowed: one example or more in each split")
        splits.append(theirs & some)
    unseen = [name for name, row in zip(names, present, strict=True) if not (row & splits[0]).any()]
    if unseen:
        raise UserError(f"modality '{unseen[0]}' is present in no training example; allowed: in one or more")
    return splits


def _measure(rows, name: str, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of the examples that are ``members`` [N]."""
    blocks = (block[members[start : start + len(block)]] for start, block in rows.array_blocks(name))
    return units.measure(blocks, rows.headers[name].shape[1:], rows.headers[name].dtype)


def _read(rows, chosen, present: np.ndarray, labels: np.ndarray, members: np.ndarray, scales, digest) -> Split:
    """Read the examples that are ``members`` [N], and update the ``digest`` with them like ``dataset.fingerprint``."""
    inputs: dict[str, np.ndarray] = {}
    for modality, row in sorted(zip(chosen, present, strict=True), key=lambda pair: pair[0].name):
        inputs[modality.name] = _read_modality(rows, modality, row, members, scales.get(modality.name), digest)
    labels = labels[members]
    digest.update(array_heading("labels", labels.dtype, labels.shape))
    digest.update(np.ascontiguousarray(labels))
    return Split({modality.name: inputs[modality.name] for modality in chosen}, present[:, members], labels)


def _read_modality(rows, modality: Modality, present, members, unit, digest) -> np.ndarray:
    """Read one array of a split as the model's inputs. The digest is updated with the values before standardisation."""
    name, done, warned = modality.name, 0, False
    given = rows.headers[name].dtype.kind
    dtype = np.dtype({"vector": "f4", "image": "f4" if given in "fb" else "u1"}.get(modality.kind, "i4"))
    array = np.empty((members.sum(), *modality.shape), dtype)
    digest.update(array_heading(name, dtype, array.shape))
    for start, block in rows.array_blocks(name):
        theirs = members[start : start + len(block)]
        there = present[start : start + len(block)][theirs]
        values = as_kind(name, block[theirs], modality.kind, there)
        digest.update(np.ascontiguousarray(values, dtype))  # standardisation may round differently on other machines
        if unit is not None:
            values = units.apply(values, there, unit)
            warned = warned or units.warn_of_codes(name, values, done)
        array[done : done + len(values)] = values
        done += len(values)
    return array


def _with_rates(modality: Modality, train: Split, row: int) -> Modality:
    """Return the modality with the mean training counts as the initial rates of its decoder, if it is Poisson.

    Counts far beyond all others, such as codes or errors, are limited in these means.
    """
    if modality.likelihood != "poisson":
        return modality
    counts, present = np.asarray(train.inputs[modality.name]), train.present[row]  # zeros where absent
    limit = _FAR_COUNTS * _typical_maximum(counts)
    if (counts > limit).any():
        name = modality.name
        log.warning(
            "array '%s' has counts up to %d; if they are errors, mark them in '%s'", name, counts.max(), name + MASK
        )
    total = np.zeros(modality.shape)
    for start in range(0, len(counts), _COUNTS_AT_ONCE):
        total += np.minimum(counts[start : start + _COUNTS_AT_ONCE], limit).sum(axis=0, dtype=np.float64)
    rates = (total + 0.5) / (present.sum() + 1.0)
    return dataclasses.replace(
        modality, scale=float(total.mean() / present.sum()) or 1.0, rates=tuple(rates.ravel().tolist())
    )


def _typical_maximum(counts: np.ndarray) -> float:
    """Return the largest count after removing the top thousandth of the non-zero counts."""
    some = np.sort(counts[counts > 0], axis=None)
    return float(some[-1 - -(-len(some) // 1000)]) if len(some) > 1 else np.inf


def _log_summary(dataset: DataSet) -> None:
    """Log the kinds and likelihoods assigned to the arrays."""
    sizes = f"{len(dataset.train.labels)} training and {len(dataset.test.labels)} test examples"
    log.info("own_data: %s, labels: %s (%d)", sizes, dataset.label_kind, dataset.num_classes)
    log.info("  %-20s %-16s %-8s %-12s %-7s %s", "modality", "shape", "kind", "likelihood", "weight", "in training")
    for modality, row in zip(dataset.modalities, dataset.train.present, strict=True):
        shape = "x".join(map(str, modality.shape))
        log.info(
            "  %-20s %-16s %-8s %-12s %-7g %.0f %%",
            modality.name,
            shape,
            modality.kind,
            modality.likelihood,
            modality.weight,
            100 * row.mean(),
        )
    log.info(
        "  (to change: config.data.kinds, config.data.likelihoods and config.data.weights, as name=value,name=value)"
    )
