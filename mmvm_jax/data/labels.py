"""Conversion of a user's labels and split from all supported forms."""

import numpy as np

from mmvm_jax.data.arrays import seen
from mmvm_jax.data.columns import is_missing
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import log

SEED = 0
TRAINING_SHARE = 0.8
_SPLIT_NAMES = {"train": 0, "test": 1, b"train": 0, b"test": 1}
_ALLOWED = "one class per example [N] (names or integers; NaN or -1 for unknown), or 0 and 1 [N, C]"


def read_labels(labels: np.ndarray | None, length: int) -> tuple[np.ndarray, tuple[str, ...], int, str]:
    """Return labels, names of the classes (or none), the number of classes, and "class", "multilabel" or "none".

    Classes that are not numbered from 0 are numbered in the order of their names, and keep the names.

    Args:
      labels: [N] classes as text, integers or real numbers with integer values. NaN, None and -1 mean unknown, except
        that -1 is a class if the only classes are -1 and 1. Or [N, C]: 0 and 1, or -1 and 1.
      length: N.

    Raises:
      UserError: the labels have another form.
    """
    if labels is None:
        return np.full(length, -1, np.int32), (), 0, "none"
    labels = _plain(labels)
    if labels.shape == (length, 1) and not _is_binary(labels):
        labels = labels[:, 0]
    if labels.shape == (length,):
        return _classes(labels, length)
    if labels.ndim == 2 and labels.shape[1] and len(labels) == length and _is_binary(labels):
        binary = (labels > 0).astype(np.int32)
        if labels.shape[1] > 2 and (binary.sum(axis=1) == 1).all():
            log.info(
                "labels: every example has exactly one of %d; for classes, pass labels.argmax(axis=1)", len(binary[0])
            )
        return binary, (), labels.shape[1], "multilabel"
    raise _wrong(labels)


def _plain(labels: np.ndarray) -> np.ndarray:
    """Convert objects to numbers or text. None becomes NaN, or in text the empty string."""
    if labels.dtype.kind != "O":
        return labels
    values = labels.ravel().tolist()
    unknown = [is_missing(value) for value in values]
    known = [value for value, missing in zip(values, unknown, strict=True) if not missing]
    kind = str if any(isinstance(value, str) for value in known) else float
    blank = "" if kind is str else np.nan
    try:
        plain = [blank if missing else kind(value) for value, missing in zip(values, unknown, strict=True)]
    except (TypeError, ValueError) as error:
        raise _wrong(labels) from error
    return np.array(plain).reshape(labels.shape)


def _is_binary(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "iubf" and bool(np.isin(labels, (0, 1)).all() or np.isin(labels, (-1, 1)).all())


def _classes(labels: np.ndarray, length: int) -> tuple[np.ndarray, tuple[str, ...], int, str]:
    known, named = np.ones(length, bool), labels.dtype.kind in "US"
    if labels.dtype.kind == "f":
        known = ~np.isnan(labels)
        if (labels[known] != np.round(labels[known])).any() or np.isinf(labels).any():
            odd = labels[known][labels[known] != np.round(labels[known])]
            raise UserError(
                f"array 'labels' is {seen(labels)} of real numbers such as {odd[0] if len(odd) else np.inf}, not "
                f"classes; allowed: {_ALLOWED}; a measurement is a modality, [N, 1]"
            )
    elif named:
        known = labels != np.array("", labels.dtype)
    elif labels.dtype.kind not in "iub":
        raise _wrong(labels)
    if not named and set(np.unique(labels[known]).tolist()) != {-1, 1}:
        known &= labels != -1
        if (labels[known] < 0).any():
            raise _wrong(labels)
    classes, numbers = np.unique(labels[known], return_inverse=True)
    if not len(classes):
        raise UserError(f"array 'labels' is {seen(labels)} without a known class; allowed: {_ALLOWED}")
    if len(classes) > max(length // 2, 10):
        raise UserError(
            f"array 'labels' is {seen(labels)} with {len(classes)} different values in {length} examples, such as "
            f"{_name(classes[-1])!r}, too many for classes; allowed: {_ALLOWED}"
        )
    result = np.full(length, -1, np.int32)
    result[known] = numbers
    if not named and (classes == np.arange(len(classes))).all():
        return result, (), len(classes), "class"
    return result, tuple(map(_name, classes)), len(classes), "class"


def _name(value) -> str:
    value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else str(int(value))


def _wrong(labels: np.ndarray) -> UserError:
    example = f", such as {str(labels.ravel()[0]):.40}" if labels.size else ""
    return UserError(f"array 'labels' is {seen(labels)}{example}; allowed: {_ALLOWED}")


def read_split(split: np.ndarray | None, length: int) -> np.ndarray:
    """Return which examples belong to the test split, [N] bool: as given, or a random fifth.

    Raises:
      UserError: the split has values other than 0 or "train", 1 or "test".
    """
    if split is None:
        is_test = np.zeros(length, bool)
        is_test[np.random.default_rng(SEED).permutation(length)[round(TRAINING_SHARE * length) :]] = True
        return is_test
    values = split.ravel().tolist() if split.dtype.fields is None else [None]
    values = [_SPLIT_NAMES.get(value, value) if isinstance(value, (str, bytes)) else value for value in values]
    wrong = next((value for value in values if not isinstance(value, (int, float)) or value not in (0, 1)), None)
    if split.shape != (length,) or wrong is not None or None in values:
        raise UserError(
            f"array 'split' is {seen(split)} with {wrong!r:.40}; allowed: 0 or 1, 'train' or 'test', [{length}]; "
            "examples for validation are set aside by config.data.validation"
        )
    return np.array(values, bool)
