"""A user's own data: one .npz file with an array for each modality.

    <name>           [N, ...]: the modality's examples
    <name>__present  [N]: whether an example has it; all do where this is left out
    labels           [N]: classes from 0 on, or [N, C]: 0 or 1; may be left out
    split            [N]: 0 or "train", 1 or "test"; otherwise 80 to 20 at random

What an array means is inferred from its type and shape, shown, and can be overridden:

    image   integers, or real numbers in 0 to 1, with three axes (grey) or four
    tokens  integers [N, T] that look padded: at least half of the rows end in the same id, which in no row is
            followed by another; sequences of equal length are to be named by config.data.kinds
    counts  other non-negative integers, with two axes
    vector  everything else; standardised by the training examples
"""

import pathlib
import zipfile

import numpy as np

from mmvm_jax.data import pipeline
from mmvm_jax.data import units
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.progress import log
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
_RESERVED = ("labels", "split")
_MASK = "__present"
_SPLIT_NAMES = {"train": 0, "test": 1}


def load(config_data, modalities=()) -> pipeline.DataSet:
    """Reads the file and shows what it was taken for.

    Args:
      config_data: ``config.data``; read are ``path``, ``kinds`` and ``likelihoods``.
      modalities: names of those wanted; all in the file if empty.

    Raises:
      UserError: the file is missing, or an array or a field is not as described above.
    """
    arrays = read_arrays(config_data.path)
    names = [name for name in arrays if name not in _RESERVED and not name.endswith(_MASK)]
    _check_names(arrays, names)
    length = _common_length(arrays)
    present = {name: _read_mask(arrays, name, length) for name in names}
    kinds = _parse("kinds", config_data.kinds, dict.fromkeys(names, tuple(LIKELIHOODS)))
    kinds = {name: kinds.get(name) or infer_kind(arrays[name], present[name]) for name in names}
    likelihoods = _parse(
        "likelihoods", config_data.likelihoods, {name: LIKELIHOODS[kinds[name]] for name in names}
    )
    inputs = {name: _as_kind(name, arrays[name], kinds[name], present[name]) for name in names}
    offered = [
        _modality(
            name,
            inputs[name],
            kinds[name],
            likelihoods.get(name) or LIKELIHOODS[kinds[name]][0],
            present[name],
        )
        for name in names
    ]
    chosen = pipeline.select_modalities(offered, modalities)
    wanted = [modality.name for modality in chosen]
    labels, num_classes, label_kind = _read_labels(arrays, length)
    whole = pipeline.Split(
        {name: inputs[name] for name in wanted}, np.stack([present[name] for name in wanted]), labels
    )
    train, test = _divide(whole, _read_split(arrays, length))
    rows = {modality.name: row for row, modality in enumerate(chosen) if modality.kind == "vector"}
    train, test, scales = units.standardise(train, test, rows)
    fingerprint = pipeline.fingerprint(train, test)
    dataset = pipeline.DataSet(chosen, train, test, num_classes, label_kind, fingerprint, units=scales)
    _show(config_data.path, dataset)
    return dataset


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name; nothing in it is unpickled.

    Raises:
      UserError: it is no such file, or an array holds objects.
    """
    if not path or not pathlib.Path(path).expanduser().is_file():
        raise UserError(
            f"config.data.path is '{path}': no such file; allowed: an .npz file with an array a modality"
        )
    name = None
    try:
        with np.load(pathlib.Path(path).expanduser(), allow_pickle=False) as archive:
            arrays = {}
            for name in archive.files:  # noqa: B007, named in the error
                arrays[name] = archive[name]
            return arrays
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        if name is None:
            raise UserError(f"config.data.path is '{path}': no .npz file ({error})") from error
        raise UserError(
            f"{path}: array '{name}' cannot be read ({error}); allowed: numbers of one shape for all examples"
        ) from error


def infer_kind(array: np.ndarray, present: np.ndarray) -> str:
    """The kind of an array [N, ...], by the rules at the head of this file."""
    observed = array[present]
    if array.ndim in (3, 4):
        is_image = array.dtype.kind in "iub" or (
            observed.size and observed.min() >= 0 and observed.max() <= 1
        )
        return "image" if is_image else "vector"
    if array.ndim != 2 or array.dtype.kind not in "iub" or (observed < 0).any():
        return "vector"
    return "tokens" if find_padding(observed) >= 0 else "counts"


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


def _check_names(arrays, names) -> None:
    if not names:
        raise UserError(
            "config.data.path holds no modality; allowed: one array [N, ...] or more, under any name"
        )
    for name in arrays:
        if name.endswith(_MASK) and name.removesuffix(_MASK) not in names:
            raise UserError(
                f"array '{name}' belongs to no modality; allowed: {', '.join(n + _MASK for n in names)}"
            )
    for name in names:
        if arrays[name].ndim < 2 or arrays[name].dtype.kind not in "iubf" or 0 in arrays[name].shape[1:]:
            array = arrays[name]
            raise UserError(f"array '{name}' is {array.dtype} {list(array.shape)}; allowed: numbers [N, ...]")


def _common_length(arrays) -> int:
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"the arrays differ in length: {listed}; allowed: as many examples in each")
    return next(iter(lengths.values()))


def _read_mask(arrays, name: str, length: int) -> np.ndarray:
    mask = arrays.get(name + _MASK, np.ones(length, bool))
    if mask.shape != (length,) or not np.isin(mask, (0, 1)).all():
        raise UserError(
            f"array '{name}{_MASK}' is {mask.dtype} {list(mask.shape)}; allowed: 0 or 1, [{length}]"
        )
    array, mask = arrays[name], mask.astype(bool)
    broken = ~np.isfinite(array).reshape(length, -1).all(axis=1) & mask
    if broken.any():
        raise UserError(
            f"array '{name}' has NaN or infinity in {broken.sum()} examples, the first is {broken.argmax()}; "
            f"allowed: only where '{name}{_MASK}' is 0"
        )
    return mask


def _parse(field: str, text: str, allowed: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """``name=value,name=value`` as a dictionary."""
    chosen = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, value = part.partition("=")
        if name not in allowed:
            raise unknown_name(f"the modality in config.data.{field}", name, allowed)
        if value not in allowed[name]:
            raise unknown_name(f"config.data.{field} for '{name}'", value, allowed[name])
        chosen[name] = value
    return chosen


def _as_kind(name: str, array: np.ndarray, kind: str, present: np.ndarray) -> np.ndarray:
    """The array in the type and with the axes of its kind, zeros where absent."""
    array = array.copy()
    array[~present] = 0
    if kind == "vector":
        return array.astype(np.float32)
    if kind == "image":
        return _as_image(name, array)
    if array.min() < 0 or (array != np.round(array)).any():
        raise UserError(
            f"array '{name}' is to be {kind} but has values such as {array.min()}; "
            "allowed: integers from 0 on"
        )
    if kind == "tokens" and array.ndim != 2:
        raise UserError(f"array '{name}' is to be tokens but has shape {list(array.shape)}; allowed: [N, T]")
    return array.astype(np.int32)


def _as_image(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (3, 4):
        shape = list(array.shape)
        raise UserError(
            f"array '{name}' is to be an image but has shape {shape}; allowed: [N, H, W] or [N, H, W, C]"
        )
    limit, dtype = (1, np.float32) if array.dtype.kind == "f" else (255, np.uint8)
    if array.min() < 0 or array.max() > limit:
        what = "real" if limit == 1 else "integer"
        raise UserError(
            f"array '{name}' is an {what} image with values from {array.min()} to {array.max()}; "
            f"allowed: 0 to {limit}, or another kind by config.data.kinds={name}=vector"
        )
    return (array[..., None] if array.ndim == 3 else array).astype(dtype)


def _modality(name: str, array: np.ndarray, kind: str, likelihood: str, present: np.ndarray) -> Modality:
    scale = 0.75 if kind == "image" else 1.0
    if kind != "tokens":
        return Modality(name, array.shape[1:], kind, likelihood, scale=scale)
    size, padding = int(array.max()) + 1, find_padding(array[present])
    return Modality(name, array.shape[1:], kind, likelihood, vocabulary_size=size, padding=padding)


def _read_labels(arrays, length: int) -> tuple[np.ndarray, int, str]:
    """Labels, the number of classes, and their kind."""
    if "labels" not in arrays:
        return np.full(length, -1, np.int32), 0, "none"
    labels = arrays["labels"]
    is_integer = labels.dtype.kind in "iub"
    if is_integer and labels.shape == (length,) and labels.min() >= 0:
        return labels.astype(np.int32), int(labels.max()) + 1, "class"
    if is_integer and labels.ndim == 2 and labels.shape[1] and np.isin(labels, (0, 1)).all():
        return labels.astype(np.int32), labels.shape[1], "multilabel"
    raise UserError(
        f"array 'labels' is {labels.dtype} {list(labels.shape)}; allowed: classes from 0 on [{length}], "
        f"or 0 and 1 [{length}, C]"
    )


def _read_split(arrays, length: int) -> np.ndarray:
    """Whether each example is for test: [N] bool."""
    if "split" not in arrays:
        is_test = np.zeros(length, bool)
        is_test[np.random.default_rng(SEED).permutation(length)[round(TRAINING_SHARE * length) :]] = True
        return is_test
    split = arrays["split"]
    values = [_SPLIT_NAMES.get(value, value) for value in split.ravel().tolist()]
    if split.shape != (length,) or not set(values) <= {0, 1}:
        raise UserError(
            f"array 'split' is {split.dtype} {list(split.shape)}; "
            f"allowed: 0 or 1, 'train' or 'test', [{length}]"
        )
    return np.array(values, bool)


def _divide(whole: pipeline.Split, is_test: np.ndarray) -> list[pipeline.Split]:
    splits = []
    for name, members in (("training", ~is_test), ("test", is_test)):
        inputs = {modality: array[members] for modality, array in whole.inputs.items()}
        split = pipeline.Split(inputs, whole.present[:, members], whole.labels[members])
        kept = pipeline.without_empty(split)
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


def _show(path: str, dataset: pipeline.DataSet) -> None:
    """Says what the file was taken for."""
    sizes = f"{len(dataset.train.labels)} training and {len(dataset.test.labels)} test examples"
    log.info("%s: %s, labels: %s (%d)", path, sizes, dataset.label_kind, dataset.num_classes)
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
