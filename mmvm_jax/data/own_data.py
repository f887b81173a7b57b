"""A user's own data: a file, a folder or a mapping, with one array per modality.

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
    binary  other arrays with two axes and no values but 0 and 1
    counts  other non-negative integers with two axes, or with three and values below 64: if their mean is 3 or less, or
            if at least 5 % of them are 0 and the highest value is rare, unlike white pixels or the end of a scale, or
            if the highest value of a column is more than ten times its mean, as the median over the columns.
            Their likelihood is Poisson, or a negative binomial if their variance exceeds three times their mean
    table   DataFrames whose columns need different likelihoods: real numbers, 0 and 1, counts, and text of up to 64
            categories. 50 or more columns that together look like counts, such as genes, are counts
    vector  everything else; standardised with the training examples

NaN in a part of an example of a vector, table, binary array or array of counts is a missing entry: encoders read a mask
of the entries beside them, likelihoods leave missing entries out, and ``impute`` fills them in.

Arrays of text, of dates and of integers called ids are left out. ``config.modalities`` selects modalities of a file.
"""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from mmvm_jax.data.arrays import (
    MASK,
    RESERVED,
    check_axes,
    check_finite,
    check_levels,
    common_length,
    modality_names,
    read_presence,
)
from mmvm_jax.data.choices import parse, parse_weights
from mmvm_jax.data.columns import infer as infer_columns
from mmvm_jax.data.columns import log_columns
from mmvm_jax.data.dataset import DataSet, Split, blocks, select_modalities
from mmvm_jax.data.description import Description
from mmvm_jax.data.inputs import order_columns
from mmvm_jax.data.kinds import (
    LIKELIHOODS,
    WITH_MISSING_ENTRIES,
    Facts,
    check_inferred,
    find_padding,
    infer_kind,
    infer_likelihood,
    read_facts,
    some_examples,
)
from mmvm_jax.data.labels import read_labels, read_split
from mmvm_jax.data.own_splits import SplitReader, measure
from mmvm_jax.data.rates import overdispersion, with_rates
from mmvm_jax.data.rows import MemoryRows, NpzRows
from mmvm_jax.data.sources import as_tables, read_source, rows_of
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Column, Modality

# The default beta is 0.25. Normal and Laplace likelihoods have a scale that beta acts on; counts have none, and overfit
# with a beta below 1 (docs/choosing.md).
_WEIGHTS = {"counts": 0.25}
_WIDE = 50  # columns of a table


def load(config_data, modalities=()) -> DataSet:
    """Read the file or folder ``config.data.path``; otherwise like ``from_arrays``."""
    return _from_rows(rows_of(read_source(config_data.path, "config.data.path")), config_data, modalities)


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
    return _from_rows(rows_of(as_tables(arrays), like), config_data, modalities, like)


def _from_rows(rows: MemoryRows | NpzRows, config_data, modalities, like: Description | None = None) -> DataSet:
    """Return the data set of ``rows``, which are read in blocks, so that memory holds little more than the result."""
    names = modality_names(rows.headers, modalities)
    length = common_length(rows.headers, names)
    there = {name: read_presence(rows, name, length) for name in names}
    facts = {name: read_facts(rows, name, there[name]) for name in names}
    if like:
        _check_like(rows, there, like)
    offered = like.modalities if like else _modalities(rows, facts, there, config_data)
    chosen = select_modalities(offered, modalities)
    labels, class_names, num_classes, label_kind = read_labels(_optional(rows, "labels"), length)
    present = np.stack([there[modality.name] for modality in chosen])
    members = _members([m.name for m in chosen], present, read_split(_optional(rows, "split"), length))
    scales = like.units if like else _measure_vectors(rows, chosen, present & members[0])
    digest = hashlib.blake2b(digest_size=8)
    reader = SplitReader(rows, chosen, present, scales, config_data.memory_gb)
    train, test = (reader.read(labels, theirs, digest) for theirs in members)
    if not like:
        _check_entries(chosen, train, rows.columns)
        chosen = tuple(with_rates(modality, train, row) for row, modality in enumerate(chosen))
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
        levels={m.name: rows.levels[m.name] for m in chosen if m.name in rows.levels},
    )
    _log_summary(dataset)
    return dataset


def _check_like(rows, present: dict[str, np.ndarray], like: Description) -> None:
    """Bring tables into the order of training, and raise UserError if entries are missing that training had."""
    for modality in like.modalities:
        if modality.name in present:
            order_columns(rows, modality.name, like)
            for start, block in rows.array_blocks(modality.name):
                there = present[modality.name][start : start + len(block)]
                check_finite(modality.name, block, there, start, modality.missing_entries)


def _measure_vectors(rows, modalities, present: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the units of all vectors, from the examples that are ``present`` [M, N]."""
    scales = {}
    for modality, row in zip(modalities, present, strict=True):
        if modality.kind in ("vector", "table"):
            mean, scale = measure(rows, modality.name, row)
            is_real = np.zeros(mean.shape, bool)
            is_real[..., modality.real_entries] = True
            scales[modality.name] = np.where(is_real, mean, 0.0), np.where(is_real, scale, 1.0)
    return scales


def _optional(rows, name: str) -> np.ndarray | None:
    return rows.read(name) if name in rows.headers else None


def _modalities(rows, facts: dict[str, Facts], present, config_data) -> list[Modality]:
    """Return the modalities of the arrays, in their order."""
    names = [name for name in rows.headers if name not in RESERVED and not name.endswith(MASK)]
    given = parse("kinds", config_data.kinds, dict.fromkeys(names, tuple(LIKELIHOODS)))
    columns = {name: _columns(rows, name, present[name]) for name in facts}
    kinds = {name: given.get(name) or _kind(facts[name], columns[name]) for name in facts}
    any_kind = tuple(sorted({likelihood for allowed in LIKELIHOODS.values() for likelihood in allowed}))
    allowed = {name: LIKELIHOODS[kinds[name]] if name in kinds else any_kind for name in names}
    likelihoods = parse("likelihoods", config_data.likelihoods, allowed)
    weights = parse_weights(config_data.weights, names)
    offered = []
    for name, kind in kinds.items():
        check_axes(name, facts[name].shape, kind)
        if name not in given:
            check_inferred(name, facts[name], kind)
        if kind == "image":
            check_levels(name, facts[name].dtype, facts[name].highest)
        if facts[name].missing and kind not in WITH_MISSING_ENTRIES:
            check_finite(name, rows.read(name), present[name])
        if name not in likelihoods:
            ratio = overdispersion(*measure(rows, name, present[name])) if kind == "counts" else 0.0
            likelihoods[name] = infer_likelihood(kind, ratio)
        modality = _modality(name, facts[name], kind, likelihoods[name])
        if config_data.missing_entries and kind in WITH_MISSING_ENTRIES:
            modality = dataclasses.replace(modality, missing_entries=True)
        if kind == "tokens":
            padding = find_padding(some_examples(rows, name, present[name]))
            modality = dataclasses.replace(modality, padding=padding, end=padding)
        if kind == "table":
            modality = dataclasses.replace(modality, columns=columns[name])
        offered.append(dataclasses.replace(modality, weight=weights.get(name, _WEIGHTS.get(kind, 1.0))))
    return offered


def _columns(rows, name: str, present: np.ndarray) -> tuple[Column, ...]:
    """Return the columns of a table with names; empty for other arrays."""
    if name not in rows.columns or len(rows.headers[name].shape) != 2:
        return ()
    return infer_columns(rows.columns[name], rows.read(name)[present], rows.levels.get(name, {}))


def _kind(facts: Facts, columns: tuple[Column, ...]) -> str:
    """Return the kind of an array. A table whose columns have one likelihood is an array like any other.

    So is a wide table of counts, such as genes of cells, of which some columns alone would look like measurements.
    """
    likelihoods, kind = {column.likelihood for column in columns}, infer_kind(facts)
    if "categorical" in likelihoods:
        return "table"
    return "table" if len(likelihoods) > 1 and not (kind == "counts" and len(columns) >= _WIDE) else kind


def _modality(name: str, facts: Facts, kind: str, likelihood: str) -> Modality:
    shape = facts.shape[1:]
    if kind == "image":
        grey = len(shape) == 2
        shape = (*shape, 1) if grey else shape
        return Modality(name, shape, kind, likelihood, scale=0.75, without_channels=grey)
    vocabulary_size = int(facts.highest) + 1 if kind == "tokens" else 0
    return Modality(name, shape, kind, likelihood, vocabulary_size=vocabulary_size, missing_entries=facts.missing)


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


def _check_entries(modalities, train: Split, columns: Mapping[str, tuple[str, ...]]) -> None:
    """Raise UserError if an entry, such as a column of a table, is missing from all training examples."""
    for modality, present in zip(modalities, train.present, strict=True):
        if not modality.missing_entries:
            continue
        unknown = np.ones(modality.shape, bool)
        for block in blocks(train.inputs[modality.name], present):
            unknown &= np.isnan(block).all(axis=0)
        if unknown.any():
            place, names = np.argwhere(unknown)[0], columns.get(modality.name)
            what = f"column '{names[place[0]]}'" if names else f"entry {', '.join(map(str, place))}"
            raise UserError(
                f"'{modality.name}': {what} has no known value in the training examples; allowed: one or more; "
                "leave such columns out"
            )


def _log_summary(dataset: DataSet) -> None:
    """Log the kinds and likelihoods assigned to the arrays."""
    sizes = f"{len(dataset.train.labels)} training and {len(dataset.test.labels)} test examples"
    log.info("own_data: %s, labels: %s (%d)", sizes, dataset.label_kind, dataset.num_classes)
    log.info("  %-20s %-16s %-8s %-20s %-7s %s", "modality", "shape", "kind", "likelihood", "weight", "in training")
    for modality, row in zip(dataset.modalities, dataset.train.present, strict=True):
        shape = "x".join(map(str, modality.shape))
        log.info(
            "  %-20s %-16s %-8s %-20s %-7g %.0f %%",
            modality.name,
            shape,
            modality.kind,
            modality.likelihood,
            modality.weight,
            100 * row.mean(),
        )
        if modality.columns:
            log_columns(modality.name, dataset.columns[modality.name], modality.columns)
    log.info(
        "  (to change: config.data.kinds, config.data.likelihoods and config.data.weights, as name=value,name=value)"
    )
