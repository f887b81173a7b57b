"""MNIST-SVHN: pairs of one class from the two publishers' files."""

import gzip
import struct

import numpy as np
import pytest
import scipy.io

from mmvm_jax.data import mnist_svhn
from mmvm_jax.errors import UserError

COUNTS = {"train": 300, "test": 100}


@pytest.fixture
def raw_files(manual):
    """Random files in the published layout; returns {split: ((digits, classes), (numbers, classes))}."""
    folder, rng, written = manual("mnist_svhn"), np.random.default_rng(0), {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        classes = rng.integers(0, 10, COUNTS[split]).astype(np.uint8)
        digits = rng.integers(0, 256, (COUNTS[split], 28, 28), dtype=np.uint8)
        for name, array in (("images-idx3", digits), ("labels-idx1", classes)):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
        numbers = rng.integers(0, 256, (32, 32, 3, COUNTS[split] + 50), dtype=np.uint8)
        their_classes = rng.integers(1, 11, (COUNTS[split] + 50, 1)).astype(np.uint8)  # 10 is the digit 0
        content = {"X": numbers, "y": their_classes}
        scipy.io.savemat(folder / f"{split}_32x32.mat", content, do_compression=True)
        written[split] = (digits, classes), (np.moveaxis(numbers, -1, 0), their_classes[:, 0] % 10)
    return written


@pytest.mark.parametrize("pairings", [1, 3])
def test_pairs_are_of_one_class_and_as_many_as_the_rarer_side_has(pairings, raw_files, load):
    dataset = load("mnist_svhn", pairings=pairings)
    assert [(m.name, m.shape) for m in dataset.modalities] == [("mnist", (28, 28, 1)), ("svhn", (32, 32, 3))]
    for split, (first, second) in zip((dataset.train, dataset.test), raw_files.values(), strict=True):
        rarer = np.minimum(np.bincount(first[1], minlength=10), np.bincount(second[1], minlength=10))
        np.testing.assert_array_equal(np.bincount(split.labels), pairings * rarer)
        for name, (pictures, classes) in (("mnist", first), ("svhn", second)):
            label_of = {picture.tobytes(): label for picture, label in zip(pictures, classes, strict=True)}
            found = [label_of[picture.tobytes()] for picture in split.inputs[name]]
            np.testing.assert_array_equal(found, split.labels)
            uses = np.unique(split.inputs[name].reshape(len(found), -1), axis=0, return_counts=True)[1]
            assert uses.max() <= pairings  # once in each pairing
        assert (np.diff(split.labels) < 0).any()  # classes are mixed


def test_a_pairing_depends_on_the_seed_alone():
    first, second = (np.random.default_rng(seed).integers(0, 10, 500) for seed in (1, 2))
    pairs = mnist_svhn.pair_classes(first, second, 2, 3)
    np.testing.assert_array_equal(pairs, mnist_svhn.pair_classes(first, second, 2, 3))
    assert (pairs != mnist_svhn.pair_classes(first, second, 2, 4)).any()


def test_one_modality(raw_files, load):
    assert list(load("mnist_svhn", ("svhn",)).train.inputs) == ["svhn"]


@pytest.mark.parametrize("pairings", [0, 31])
def test_wrong_pairings(pairings, load):
    with pytest.raises(UserError, match=f"config.data.pairings is {pairings}; allowed: 1 to 30"):
        load("mnist_svhn", pairings=pairings)


def test_missing_and_damaged_files(raw_files, manual, load):
    path = manual("mnist_svhn") / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="test_32x32.mat cannot be read"):
        load("mnist_svhn")
    path.unlink()
    with pytest.raises(UserError, match="mnist_svhn: test_32x32.mat is missing"):
        load("mnist_svhn")


@pytest.mark.parametrize(
    "content", [b"", bytes(9000), b"<html>", b"MATLAB 5.0 MAT-file" + bytes(200), b"\x89HDF\r\n\x1a\n"]
)
def test_what_is_no_mat_file(content, raw_files, manual, load):
    (manual("mnist_svhn") / "test_32x32.mat").write_bytes(content)
    with pytest.raises(UserError, match="test_32x32.mat cannot be read: "):
        load("mnist_svhn")


@pytest.mark.slow
def test_the_whole_path(raw_files, quicktest):
    values = quicktest("mnist_svhn")
    assert {"coherence/mnist_to_svhn", "coherence/svhn_to_mnist"} <= set(values)
