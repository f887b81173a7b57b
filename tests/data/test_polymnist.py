"""PolyMNIST: read from its files, and composed from MNIST and photographs."""

import gzip
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from mmvm_jax.data import polymnist
from mmvm_jax.errors import UserError

NUMBERS = (0, 2, 10, 11, 100)  # their lexical order differs from the numeric one


def picture(split: str, modality: int, number: int, label: int) -> np.ndarray:
    """A picture that tells whose it is."""
    values = (split == "train", modality, number, label)
    return np.resize(np.array(values, np.uint8), (28, 28, 3))


def write_published(folder, num_modalities: int = 5):
    """The published layout: no number of class 0, one of class 2, five of the others."""
    for split in ("train", "test"):
        for modality in range(num_modalities):
            (folder / split / f"m{modality}").mkdir(parents=True)
            for label in range(1, 10):
                for number in NUMBERS if label != 2 else NUMBERS[:1]:
                    path = folder / split / f"m{modality}" / f"{number}.{label}.png"
                    Image.fromarray(picture(split, modality, number, label)).save(path)


def write_mnist(folder, count: dict):
    """MNIST's files with ``count`` random digits a split; returns {split: (images, labels)}."""
    rng, written = np.random.default_rng(0), {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        labels = rng.permutation(np.arange(count[split]) % 10).astype(np.uint8)
        images = rng.integers(0, 256, (count[split], 28, 28), dtype=np.uint8)
        head = b"\0\0\x08\x03" + struct.pack(">III", *images.shape)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        head = b"\0\0\x08\x01" + struct.pack(">I", len(labels))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))
        written[split] = images, labels
    return written


def write_photographs(folder, count: int):
    """Photographs of one colour each, (8 m, 50, 100), whose names' lexical and numeric order differ."""
    (folder / "backgrounds").mkdir()
    for number in range(count):
        ending = ("jpg", "png", "jpeg")[number % 3]
        colours = np.full((40, 60, 3), (8 * number, 50, 100), np.uint8)
        Image.fromarray(colours).save(folder / "backgrounds" / f"{number + 8}.{ending}", quality=100)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("polymnist", "PolyMNIST"), ("polymnist_translated", "PolyMNIST_translated_scale075")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_published_files(name, folder, packed, manual, load, pack):
    write_published(manual(name) / folder)
    if packed:
        pack(manual(name) / folder, f"{folder}.zip")
    dataset = load(name, num_modalities=3)
    assert [modality.name for modality in dataset.modalities] == ["m0", "m1", "m2"]
    keys = sorted((n, label) for label in range(1, 10) for n in (NUMBERS if label != 2 else NUMBERS[:1]))
    for split_name, split in (("train", dataset.train), ("test", dataset.test)):
        np.testing.assert_array_equal(split.labels, [label for _, label in keys])
        for modality in range(3):
            expected = [picture(split_name, modality, *key) for key in keys]
            np.testing.assert_array_equal(split.inputs[f"m{modality}"], expected)
    assert (dataset.num_classes, dataset.label_kind) == (10, "class")


def test_a_missing_and_a_damaged_picture(manual, load):
    write_published(manual("polymnist") / "PolyMNIST")
    path = manual("polymnist") / "PolyMNIST" / "test" / "m1" / "10.3.png"
    path.unlink()
    with pytest.raises(UserError, match="polymnist: test/m1/10.3.png is missing"):
        load("polymnist", num_modalities=2)
    Image.new("RGB", (20, 28)).save(path)
    with pytest.raises(UserError, match=r"10.3.png cannot be read: a picture of shape \(28, 20, 3\)"):
        load("polymnist", num_modalities=2)
    path.write_bytes(b"PNG")
    with pytest.raises(UserError, match="10.3.png cannot be read"):
        load("polymnist", num_modalities=2)


@pytest.mark.parametrize("name", ["polymnist", "polymnist_translated"])
def test_composed(name, manual, load):
    write_mnist(manual(name), {"train": 200, "test": 50})
    write_photographs(manual(name), 5)
    dataset = load(name, num_modalities=4)
    assert dataset.train.labels.shape == (200,) and dataset.test.labels.shape == (50,)
    np.testing.assert_array_equal(dataset.train.labels[:12], [*range(10), 0, 1])
    for number, pictures in enumerate(dataset.train.inputs.values()):
        # Every pixel has the photograph's colour or the inverted one, but for what JPEG changes.
        colour = np.array((8 * number, 50, 100))
        plain, inverted = (np.abs(pictures.astype(int) - c).max(axis=-1) <= 4 for c in (colour, 255 - colour))
        assert (plain | inverted).all() and plain.any() and inverted.any()
    assert dataset.fingerprint == load(name, num_modalities=4).fingerprint


def test_composed_from_the_file_that_keras_ships(manual, load):
    written = write_mnist(manual("polymnist"), {"train": 60, "test": 50})
    write_photographs(manual("polymnist"), 2)
    wanted = load("polymnist", num_modalities=2).fingerprint
    for path in [*manual("polymnist").glob("*.gz"), manual("polymnist").parents[2] / "polymnist"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    arrays = {
        f"{axis}_{split}": array for split, pair in written.items() for axis, array in zip("xy", pair, strict=True)
    }
    np.savez(manual("polymnist") / "mnist.npz", **arrays)
    assert load("polymnist", num_modalities=2).fingerprint == wanted


def test_missing_pictures_of_both_splits_are_counted_before_any_is_decoded(manual, load, monkeypatch):
    write_published(manual("polymnist"), 2)
    for path in (manual("polymnist") / "test" / "m1").glob("10.*.png"):
        path.unlink()
    monkeypatch.setattr(polymnist, "_read_picture", None)
    with pytest.raises(UserError, match=r"8 of 82 files, such as test/m1/10.1.png, test/m1/10.3.png, .* are missing"):
        load("polymnist", num_modalities=2)


def test_number_of_modalities_does_not_change_a_composed_example(manual, load):
    write_mnist(manual("polymnist"), {"train": 60, "test": 50})
    write_photographs(manual("polymnist"), 5)
    for path in (manual("polymnist") / "backgrounds").iterdir():  # where every crop differs
        noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    two, five = (load("polymnist", num_modalities=count) for count in (2, 5))
    for name in two.train.inputs:
        np.testing.assert_array_equal(two.train.inputs[name], five.train.inputs[name])


def test_every_digit_is_used_once_in_each_modality():
    targets = np.random.default_rng(1).integers(0, 10, 300)
    labels, digits = polymnist.draw_digits(targets, 3, 0)
    np.testing.assert_array_equal(targets[digits], np.tile(labels, (3, 1)))
    np.testing.assert_array_equal(np.sort(digits), np.tile(np.arange(300), (3, 1)))
    assert (digits[0] != digits[1]).any()


def test_crops_are_inverted_under_the_mask():
    photograph = np.random.default_rng(2).integers(0, 256, (35, 50, 3), dtype=np.uint8)
    masks = np.random.default_rng(3).random((200, 28, 28)) < 0.3
    pictures = polymnist.compose(masks, photograph, np.random.default_rng(4))
    crops = np.where(masks[..., None], 255 - pictures, pictures)
    windows = {photograph[y : y + 28, x : x + 28].tobytes(): (y, x) for y in range(8) for x in range(23)}
    places = np.array([windows[crop.tobytes()] for crop in crops])
    assert set(places[:, 0]) == set(range(8)) and {0, 22} < set(places[:, 1])


def test_translated_digits_lie_at_offsets_0_to_7():
    photograph = np.zeros((28, 28, 3), np.uint8)
    pictures = polymnist.compose(np.ones((1000, 21, 21), bool), photograph, np.random.default_rng(0))
    ink = pictures[..., 0] == 255
    assert (ink.sum(axis=(1, 2)) == 21 * 21).all()
    for axis in (1, 2):
        np.testing.assert_array_equal(np.unique(ink.any(axis=axis).argmax(axis=1)), np.arange(8))


def test_digits_are_where_mnist_is_bright():
    images = np.array([128, 129], np.uint8).reshape(1, 1, 2).repeat(28, 1).repeat(14, 2)
    np.testing.assert_array_equal(polymnist.digit_masks(images, False)[0], images[0] == 129)
    # Pixel j of 21 lies at (j + 0.5) * 4/3 - 0.5 of 28.
    places = (np.arange(21) + 0.5) * 4 / 3 - 0.5
    for slope in (5, 6, 7, 8, 9):
        ramp = np.tile(np.arange(28, dtype=np.uint8) * slope, (1, 28, 1))
        np.testing.assert_array_equal(polymnist.digit_masks(ramp, True)[0], np.tile(slope * places > 128, (21, 1)))


def test_photographs_must_suffice(manual, load):
    write_mnist(manual("polymnist"), {"train": 20, "test": 20})
    write_photographs(manual("polymnist"), 2)
    with pytest.raises(UserError, match="backgrounds holds 2 photographs; allowed: 3 or more.*num_modalities=2"):
        load("polymnist", num_modalities=3)
    Image.new("RGB", (20, 50)).save(manual("polymnist") / "backgrounds" / "1.png")
    with pytest.raises(UserError, match="1.png cannot be read: 20x50 pixels; expected 28 or more"):
        load("polymnist", num_modalities=2)


def test_nothing_there(load, tmp_path):
    with pytest.raises(UserError, match="polymnist_translated: train/m0/0.0.png is missing"):
        load("polymnist_translated")
    assert not list(tmp_path.glob("polymnist/translated_3/*"))


def test_wrong_number_of_modalities(load):
    with pytest.raises(UserError, match="config.data.num_modalities is 6; allowed: 2 to 5"):
        load("polymnist", num_modalities=6)


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("polymnist", "small_cnn"),
        pytest.param("polymnist", "polymnist_resnet", marks=pytest.mark.slow),
        pytest.param("polymnist_translated", "polymnist_resnet", marks=pytest.mark.slow),
    ],
)
def test_the_whole_path(name, network, manual, quicktest):
    write_mnist(manual(name), {"train": 40, "test": 20})
    write_photographs(manual(name), 5)
    values = quicktest(name, ("m0", "m1"), network)
    assert {"coherence/m0_to_m1", "coherence/m1_to_m0"} <= set(values)
