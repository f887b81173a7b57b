"""A user's own data: one .npz file with an array for each modality.

    <name>           [N, ...]: the modality's examples
    <name>__present  [N]: whether an example has it; all do where this is left out
    labels           [N]: classes from 0 on, or [N, C]: 0 or 1; may be left out
    split            [N]: 0 or "train", 1 or "test"; otherwise 80 to 20 at random

What an array means is inferred from its type and shape, shown, and can be overridden:

    image   integers (0 to 255), real numbers in 0 to 1 or truth values, with three axes (grey) or four
    tokens  integers [N, T], T of 5 or more, that look padded: at least half of the rows end in the same id, which in
            no row is followed by another; shorter ones, and sequences of equal length, are to be named by
            config.data.kinds. The first of these ids ends a sequence, which is learned; later ones are not looked at
    counts  other non-negative integers, with two axes, of 3 or less on average; larger ones are to be named by
            config.data.kinds, as most integers of their size are measured rather than counted
    vector  everything else; standardised by the training examples
"""

import dataclasses

import numpy as np

from mmvm_jax.data import units
from mmvm_jax.data.arrays import MASK, as_kind, check_finite, check_levels, common_length, modality_names, read_mask
from mmvm_jax.data.dataset import DataSet, Split, fingerprint, select_modalities, without_empty
from mmvm_jax.data.rows import NpzRows
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.runtime.progress import log
from mmvm_jax.types import Modality

# The likelihoods that fit a kind, the default first.
LIKELIHOODS = {
    "image": ("laplace", "normal", "bernoulli"),
    "vector": ("normal", "laplace"),
    "counts": ("poisson", "normal"),
    "tokens": ("categorical",),
}
SEED = 0
TRAINING_SHARE = 0.8
_LARGEST_MEAN_COUNT = 3
_SHORTEST_TEXT = 5  # the columns of a table of counts may each be 0 where the one before is
_SPLIT_NAMES = {"train": 0, "test": 1}


def load(config_data, modalities=()) -> DataSet:
    """Reads the file ``config.data.path``; otherwise as ``from_arrays``."""
    rows = NpzRows(config_data.path, "config.data.path")
    return from_arrays({name: rows.read(name) for name in rows.headers}, config_data, modalities)


def from_arrays(arrays: dict[str, np.ndarray], config_data, modalities=()) -> DataSet:
    """The data set that arrays in memory make up; shows what they were taken for.

    Args:
      arrays: by name, as described above.
      config_data: ``config.data``; read are ``kinds`` and ``likelihoods``.
      modalities: names of those wanted; all if empty.

    Raises:
      UserError: an array or a field is not as described above.
    """
    names, length = modality_names(arrays), common_length(arrays)
    present = {name: read_mask(arrays.get(name + MASK), name, length) for name in names}
    for name in names:
        check_finite(name, arrays[name], present[name])
    kinds = _parse("kinds", config_data.kinds, dict.fromkeys(names, tuple(LIKELIHOODS)))
    kinds = {name: kinds.get(name) or infer_kind(arrays[name], present[name]) for name in names}
    allowed = {name: LIKELIHOODS[kind] for name, kind in kinds.items()}
    likelihoods = _parse("likelihoods", config_data.likelihoods, allowed)
    inputs = {name: _as_kind(name, arrays[name], kinds[name], present[name]) for name in names}
    offered = [
        _modality(name, inputs[name], kinds[name], likelihoods.get(name, allowed[name][0]), present[name])
        for name in names
    ]
    lacking = {name: inputs[name].ndim > arrays[name].ndim for name in names}
    offered = [dataclasses.replace(modality, without_channels=lacking[modality.name]) for modality in offered]
    chosen = select_modalities(offered, modalities)
    inputs, present = ({m.name: values[m.name] for m in chosen} for values in (inputs, present))
    labels, num_classes, label_kind = _read_labels(arrays, length)
    whole = Split(inputs, np.stack(list(present.values())), labels)
    splits = _divide(whole, _read_split(arrays, length))
    digest = fingerprint(*splits)  # before arithmetic, which another machine may round differently
    rows = {modality.name: row for row, modality in enumerate(chosen) if modality.kind == "vector"}
    train, test, scales = units.standardise(*splits, rows)
    for name in rows:
        units.warn_of_codes(name, train.inputs[name]) or units.warn_of_codes(name, test.inputs[name])
    chosen = tuple(_with_rate(modality, train, row) for row, modality in enumerate(chosen))
    dataset = DataSet(chosen, train, test, num_classes, label_kind, digest, units=scales)
    _show(dataset)
    return dataset


def _as_kind(name: str, array: np.ndarray, kind: str, present: np.ndarray) -> np.ndarray:
    """The array as its kind; an error also names the kinds that it could be instead."""
    try:
        return _checked_kind(name, array, kind, present)
    except UserError as error:
        others = [f"{name}={other}" for other in LIKELIHOODS if _can_be(name, array, other, present)]
        raise UserError(f"{error}; or another kind by config.data.kinds: {' or '.join(others)}") from error


def _can_be(name: str, array: np.ndarray, kind: str, present: np.ndarray) -> bool:
    try:
        _checked_kind(name, array, kind, present)
    except UserError:
        return False
    return True


def _checked_kind(name: str, array: np.ndarray, kind: str, present: np.ndarray) -> np.ndarray:
    values = as_kind(name, array, kind, present)
    if kind == "image":
        check_levels(name, values)
    return values


def infer_kind(array: np.ndarray, present: np.ndarray) -> str:
    """The kind of an array [N, ...], by the rules at the head of this file."""
    observed = array[present]
    if array.ndim in (3, 4):
        is_image = array.dtype.kind in "iub" or (observed.size and observed.min() >= 0 and observed.max() <= 1)
        return "image" if is_image else "vector"
    if array.ndim != 2 or array.dtype.kind not in "iub" or (observed < 0).any():
        return "vector"
    if array.shape[1] >= _SHORTEST_TEXT and find_padding(observed) >= 0:
        return "tokens"
    return "counts" if not observed.size or observed.mean() <= _LARGEST_MEAN_COUNT else "vector"


def find_padding(ids: np.ndarray) -> int:
    """The id that fills rows [N, T] up to their end; -1 if there is none."""
    if ids.size == 0 or ids.shape[1] < 2:
        return -1
    values, counts = np.unique(ids[:, -1], return_counts=True)
    padding = values[counts.argmax()]
    is_padding = ids == padding
    ends_only = not (is_padding[:, :-1] & ~is_padding[:, 1:]).any()
    fills = is_padding[:, -1].mean() >= 0.5 and is_padding[:, -2].any() and not is_padding.all()
    return int(padding) if ends_only and fills and ids.min() >= 0 else -1


def _parse(field: str, text: str, allowed: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """``name=value,name=value`` as a dictionary."""
    chosen = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = map(str.strip, part.partition("="))
        if name not in allowed:
            raise unknown_name(f"the modality in config.data.{field}", name, allowed)
        if value not in allowed[name]:
            raise unknown_name(f"config.data.{field} for '{name}'", value, allowed[name])
        chosen[name] = value
    return chosen


def _modality(name: str, array: np.ndarray, kind: str, likelihood: str, present: np.ndarray) -> Modality:
    scale = 0.75 if kind == "image" else 1.0
    if kind != "tokens":
        return Modality(name, array.shape[1:], kind, likelihood, scale=scale)
    size, padding = int(array.max()) + 1, find_padding(array[present])
    return Modality(name, array.shape[1:], kind, likelihood, vocabulary_size=size, padding=padding, end=padding)


def _with_rate(modality: Modality, train: Split, row: int) -> Modality:
    """With the mean of its training examples as the rate that decoders start from, if it has a rate."""
    if modality.likelihood != "poisson":
        return modality
    mean = train.inputs[modality.name][train.present[row]].mean(dtype=np.float64)
    return dataclasses.replace(modality, scale=float(mean) or 1.0)


def _read_labels(arrays, length: int) -> tuple[np.ndarray, int, str]:
    """Labels, the number of classes, and their kind."""
    if "labels" not in arrays:
        return np.full(length, -1, np.int32), 0, "none"
    labels = arrays["labels"]
    is_integer = labels.dtype.kind in "iub"
    if is_integer and labels.shape == (length,) and labels.min() >= 0:
        if labels.max() >= length:
            raise UserError(
                f"array 'labels' has the class {labels.max()}; allowed: 0 to {length - 1}, by {length} examples"
            )
        return labels.astype(np.int32), int(labels.max()) + 1, "class"
    if is_integer and labels.ndim == 2 and labels.shape[1] and np.isin(labels, (0, 1)).all():
        return labels.astype(np.int32), labels.shape[1], "multilabel"
    raise UserError(
        f"array 'labels' is {labels.dtype} {list(labels.shape)}; allowed: integers, classes from 0 on [{length}] "
        f"or 0 and 1 [{length}, C]"
    )


def _read_split(arrays, length: int) -> np.ndarray:
    """Whether each example is for test: [N] bool."""
    if "split" not in arrays:
        is_test = np.zeros(length, bool)
        is_test[np.random.default_rng(SEED).permutation(length)[round(TRAINING_SHARE * length) :]] = True
        return is_test
    split = arrays["split"]
    values = [_SPLIT_NAMES.get(value, value) for value in split.ravel().tolist()] if split.dtype.kind != "O" else None
    if split.shape != (length,) or values is None or not set(values) <= {0, 1}:
        raise UserError(
            f"array 'split' is {split.dtype} {list(split.shape)}; allowed: 0 or 1, 'train' or 'test', [{length}]"
        )
    return np.array(values, bool)


def _divide(whole: Split, is_test: np.ndarray) -> list[Split]:
    splits = []
    for name, members in (("training", ~is_test), ("test", is_test)):
        inputs = {modality: array[members] for modality, array in whole.inputs.items()}
        split = Split(inputs, whole.present[:, members], whole.labels[members])
        kept = without_empty(split)
        if len(kept.labels) < len(split.labels):
            log.info(
                "own_data: %d %s examples have no modality and are left out",
                len(split.labels) - len(kept.labels),
                name,
            )
        if not len(kept.labels):
            raise UserError(f"the {name} split is empty; allowed: one example or more in each split")
        splits.append(kept)
    unseen = [name for name, row in zip(whole.inputs, splits[0].present, strict=True) if not row.any()]
    if unseen:
        raise UserError(f"modality '{unseen[0]}' is present in no training example; allowed: in one or more")
    return splits


def _show(dataset: DataSet) -> None:
    """Says what the arrays were taken for."""
    sizes = f"{len(dataset.train.labels)} training and {len(dataset.test.labels)} test examples"
    log.info("own_data: %s, labels: %s (%d)", sizes, dataset.label_kind, dataset.num_classes)
    log.info("  %-20s %-16s %-8s %-12s %s", "modality", "shape", "kind", "likelihood", "present in training")
    for modality, row in zip(dataset.modalities, dataset.train.present, strict=True):
        shape = "x".join(map(str, modality.shape))
        log.info(
            "  %-20s %-16s %-8s %-12s %.0f %%",
            modality.name,
            shape,
            modality.kind,
            modality.likelihood,
            100 * row.mean(),
        )
    log.info("  (to change: config.data.kinds and config.data.likelihoods, as name=value,name=value)")
