"""Labels and splits in the forms that people have: understood, or refused with what was seen."""

import numpy as np
import pandas as pd
import pytest

from mmvm_jax.data.labels import read_labels, read_split
from mmvm_jax.errors import UserError

N = 12
CLASSES = np.arange(N) % 3
MISSING = np.arange(N) % 5 == 4


class NAType:
    """Stands for ``pandas.NA``, which compares to neither True nor False."""

    def __ne__(self, other):
        return self

    def __bool__(self):
        return True


UNDERSTOOD = {
    "integers": (CLASSES, CLASSES, ()),
    "unsigned": (CLASSES.astype(np.uint64), CLASSES, ()),
    "truth values": (CLASSES > 0, CLASSES > 0, ()),
    "real": (CLASSES.astype(float), CLASSES, ()),
    "a column": (CLASSES[:, None], CLASSES, ()),
    "from one on": (CLASSES + 1, CLASSES, ("1", "2", "3")),
    "identifiers": (CLASSES + 10_001, CLASSES, ("10001", "10002", "10003")),
    "beyond int32": (np.full(N, 2**40), np.zeros(N), (str(2**40),)),
    "with a gap": (CLASSES * 5, CLASSES, ("0", "5", "10")),
    "names": (np.array(["a", "b", "c"])[CLASSES], CLASSES, ("a", "b", "c")),
    "bytes": (np.array([b"a", b"b", b"c"])[CLASSES], CLASSES, ("a", "b", "c")),
    "objects": (np.array(["a", "b", "c"], object)[CLASSES], CLASSES, ("a", "b", "c")),
    "signs": (np.where(CLASSES > 0, 1, -1), CLASSES > 0, ("-1", "1")),
    "-1 for unknown": (np.where(MISSING, -1, CLASSES), np.where(MISSING, -1, CLASSES), ()),
    "NaN for unknown": (np.where(MISSING, np.nan, CLASSES), np.where(MISSING, -1, CLASSES), ()),
    "None among names": (
        np.where(MISSING, None, np.array(["a", "b", "c"], object)[CLASSES]),
        np.where(MISSING, -1, CLASSES),
        ("a", "b", "c"),
    ),
    "NA among numbers": (
        np.array([NAType() if missing else int(c) for missing, c in zip(MISSING, CLASSES, strict=True)], object),
        np.where(MISSING, -1, CLASSES),
        (),
    ),
}


@pytest.mark.parametrize("kind", UNDERSTOOD)
def test_classes(kind):
    given, wanted, names = UNDERSTOOD[kind]
    labels, class_names, count, label_kind = read_labels(given, N)
    np.testing.assert_array_equal(labels, wanted)
    assert (class_names, count, label_kind) == (names, np.max(wanted) + 1, "class") and labels.dtype == np.int32


@pytest.mark.parametrize("lowest", [0, -1, 0.0, -1.0, False])
def test_several_labels(lowest):
    binary = np.random.default_rng(0).random((N, 4)) < 0.5
    labels, _, count, kind = read_labels(np.where(binary, type(lowest)(1), lowest), N)
    np.testing.assert_array_equal(labels, binary)
    assert (count, kind) == (4, "multilabel")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.random.default_rng(0).normal(size=N), "real numbers such as 0.12.*; a measurement is a modality"),
        (np.arange(N) + 7, "12 different values in 12 examples, such as '18', too many for classes"),
        (np.full(N, -1), "without a known class"),
        (np.array([["a", "b"]] * N), r"\[12, 2\], such as a; allowed: one class per example"),
        (np.array([{}] * N), "is object"),
        (np.zeros(N, "M8[s]"), r"is datetime64\[s\]"),
        (np.where(MISSING, -2, CLASSES), "is int64"),
    ],
)
def test_what_is_no_label(given, message):
    with pytest.raises(UserError, match=message):
        read_labels(given, N)


@pytest.mark.parametrize("dtype", [object, str, "S5"])
def test_a_split_by_words(dtype):
    words = np.where(np.arange(N) < 8, "train", "test").astype(dtype)
    np.testing.assert_array_equal(read_split(words, N), np.arange(N) >= 8)


def test_another_word_in_a_split():
    words = np.array(["train", "val", "test"] * 4, object)
    with pytest.raises(UserError, match="'split' is object .* with 'val'; .* set aside by config.data.validation"):
        read_split(words, N)


def test_what_pandas_marks_as_missing_is_unknown():
    for labels in (
        pd.array(["b", None, "a"], "string"),
        pd.array([1, None, 0], "Int64"),
        pd.array([True, None, False]),
    ):
        numbers, _, count, kind = read_labels(np.asarray(labels, object), 3)
        assert (list(numbers), count, kind) == ([1, -1, 0], 2, "class")
