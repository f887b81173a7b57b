"""Polydigits: what is drawn, how it looks, and that it is prepared whole or not at all."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
from sklearn import datasets
from sklearn.neighbors import KNeighborsClassifier

from mmvm_jax.data import builders, load_dataset, polydigits
from mmvm_jax.errors import UserError
from mmvm_jax.types import Modality


@pytest.fixture(scope="module")
def drawn():
    """Labels and digit numbers of both splits, with the seed in use."""
    return {split: polydigits.draw_digits(split, polydigits.SEED) for split in ("train", "test")}


@pytest.fixture(scope="module")
def ink(drawn):
    """Where the digits of the plain test split are: [N, 5, 28, 28]."""
    return polydigits.digit_masks(polydigits.SIDE)[drawn["test"][1]]


def in_subprocess(code: str, *arguments) -> subprocess.CompletedProcess:
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_default_data_set(full_config):
    dataset = load_dataset(full_config)
    names = ("m0", "m1", "m2")
    assert dataset.modalities == tuple(Modality(name, (28, 28, 3), "image", "laplace", scale=0.75) for name in names)
    assert (dataset.num_classes, dataset.label_kind, len(dataset.fingerprint)) == (10, "class", 16)
    for split, size in ((dataset.train, 10_000), (dataset.test, 2_000)):
        assert tuple(split.inputs) == names
        for pictures in split.inputs.values():
            assert pictures.shape == (size, 28, 28, 3) and pictures.dtype == np.uint8
            assert pictures.flags.c_contiguous
        assert split.present.shape == (3, size) and split.present.all()
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(split.labels), np.full(10, size // 10))


def test_splits_share_no_digit(drawn):
    train, test = (np.unique(drawn[split][1]) for split in ("train", "test"))
    assert np.intersect1d(train, test).size == 0
    assert np.union1d(train, test).size == 1797  # and none is left out
    assert 0.79 < len(train) / 1797 < 0.81


def test_an_example_shows_different_digits_of_its_class(drawn):
    targets = datasets.load_digits().target
    for labels, digits in drawn.values():
        np.testing.assert_array_equal(targets[digits], np.repeat(labels[:, None], 5, axis=1))
        assert (np.diff(np.sort(digits, axis=1)) > 0).all()


def test_the_seed_determines_every_byte(five):
    again = polydigits.make_split("test", translated=False)
    other = polydigits.make_split("test", translated=False, seed=polydigits.SEED + 1)
    for name, pictures in five.test.inputs.items():
        np.testing.assert_array_equal(pictures, again[name])
        assert (pictures != other[name]).any(axis=(1, 2, 3)).mean() > 0.99
    np.testing.assert_array_equal(five.test.labels, again["label"])


def test_number_of_modalities_does_not_change_an_example(data_config):
    three = load_dataset(data_config)
    data_config.num_modalities = 5
    five = load_dataset(data_config)
    for name in ("m0", "m1", "m2"):
        np.testing.assert_array_equal(three.train.inputs[name], five.train.inputs[name])
    assert three.fingerprint != five.fingerprint


def test_stored_in_the_order_of_the_index(full_config):
    builder = builders.prepare(polydigits.Polydigits, "plain", full_config.dir)
    index = builders.read_split(builder, "train", ["index"])[0]["index"]
    np.testing.assert_array_equal(index, np.arange(10_000))


@pytest.mark.parametrize("number", range(5))
def test_picture_is_a_crop_with_inverted_ink(number, five, ink):
    photograph = polydigits.read_photograph(*polydigits.PHOTOGRAPHS[number])
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (28, 28), axis=(0, 1))
    for row in range(3):
        picture = five.test.inputs[f"m{number}"][row]
        crop = np.where(ink[row, number][..., None], 255 - picture, picture)
        candidates = np.argwhere((photograph[:-27, :-27] == crop[0, 0]).all(axis=-1))
        assert any((np.moveaxis(windows[top, left], 0, -1) == crop).all() for top, left in candidates)


def test_strokes_stay_whole_and_apart():
    targets = datasets.load_digits().target
    masks = np.pad(polydigits.digit_masks(28), ((0, 0), (1, 1), (1, 1)))
    regions = np.array([ndimage.label(~mask)[1] for mask in masks])
    assert (regions[targets == 0] > 1).mean() > 0.9  # a hole besides the outside
    assert (regions[targets == 8] > 2).mean() > 0.65
    assert (regions[np.isin(targets, [1, 2, 3, 5, 7])] > 1).mean() < 0.05


def test_digits_stand_out(five, ink):
    for number, pictures in enumerate(five.test.inputs.values()):
        change = np.abs(255 - 2 * pictures.astype(int)).mean(axis=-1)  # what inversion changed
        visible = np.array([(row[mask] >= 60).mean() for row, mask in zip(change, ink[:, number])])
        assert (visible > 0.8).mean() > 0.99


def test_backgrounds_tell_the_modality(five):
    def colours(split, count):
        pictures = np.concatenate([pictures[:count] / 255 for pictures in split.inputs.values()])
        statistics = [np.quantile(pictures, share, axis=(1, 2)) for share in (0.1, 0.25, 0.5, 0.75, 0.9)]
        return np.concatenate(statistics, axis=1), np.repeat(np.arange(5), count)

    classifier = KNeighborsClassifier().fit(*colours(five.train, 400))
    assert classifier.score(*colours(five.test, 400)) > 0.95


def test_backgrounds_vary_within_a_modality(five):
    for pictures in five.test.inputs.values():
        assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) == len(pictures)


def test_translated_digits_lie_anywhere_inside():
    rng = np.random.default_rng(0)
    placed = polydigits.place_randomly(np.ones((2000, 21, 21), bool), rng)
    assert (placed.sum(axis=(1, 2)) == 21**2).all()
    for axis in (1, 2):
        first = placed.any(axis=axis).argmax(axis=1)
        np.testing.assert_array_equal(np.unique(first), np.arange(8))
        assert np.bincount(first).min() > 2000 / 8 * 0.7  # 2000 draws: five standard deviations are 74


def test_translated_variant_is_loaded(data_config):
    data_config.variant = "translated"
    expected = polydigits.make_split("test", translated=True)
    for name, pictures in load_dataset(data_config).test.inputs.items():
        np.testing.assert_array_equal(pictures, expected[name])


def test_tensorflow_is_never_imported(tmp_path):
    code = """
import sys
from mmvm_jax import config
from mmvm_jax.data import load_dataset, polydigits
polydigits.NUM_EXAMPLES = {"train": 40, "test": 20}
data = config.base().data
data.dir = sys.argv[1]
assert load_dataset(data).train.labels.shape == (40,)
print("tensorflow" in sys.modules)
"""
    outcome = in_subprocess(code, tmp_path)
    assert outcome.stdout == "False\n", outcome.stderr


def test_killed_preparation_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    code = """
import os, signal, sys
from mmvm_jax.data import builders, polydigits
polydigits.NUM_EXAMPLES = {"train": 40, "test": 20}
class Killer(polydigits.Progress):
    def update(self, count, note=""):
        if self._total == 20:  # the training split is written
            os.kill(os.getpid(), signal.SIGKILL)
polydigits.Progress = Killer
builders.prepare(polydigits.Polydigits, "plain", sys.argv[1])
"""
    assert in_subprocess(code, tmp_path).returncode == -9
    written = [path.name for path in (tmp_path / "polydigits" / "plain").iterdir()]
    assert len(written) == 1 and written[0].startswith("incomplete")
    monkeypatch.setattr(polydigits, "NUM_EXAMPLES", {"train": 40, "test": 20})
    builder = builders.prepare(polydigits.Polydigits, "plain", tmp_path)
    assert builders.read_split(builder, "test", ["m4"])[0]["m4"].shape == (20, 28, 28, 3)


def test_the_slower_of_two_preparations_uses_the_other_ones_data(tmp_path, monkeypatch):
    monkeypatch.setattr(polydigits, "NUM_EXAMPLES", {"train": 40, "test": 20})
    make_split, raced = polydigits.make_split, []

    def make_and_race(*arguments):
        if not raced:
            raced.append(True)
            builders.prepare(polydigits.Polydigits, "plain", tmp_path)
        return make_split(*arguments)

    monkeypatch.setattr(polydigits, "make_split", make_and_race)
    builder = builders.prepare(polydigits.Polydigits, "plain", tmp_path)
    assert len(builders.read_split(builder, "train", ["m0"])[1]) == 40


def test_unwritable_directory(data_config, tmp_path):
    (tmp_path / "file").write_text("")
    data_config.dir = str(tmp_path / "file")
    with pytest.raises(UserError, match=r"config.data.dir is '.*file': cannot prepare polydigits there"):
        load_dataset(data_config)


def test_absent_photograph(data_config, tmp_path, monkeypatch):
    monkeypatch.setattr(polydigits, "PHOTOGRAPHS", (("skimage.data", "absent.png"),) * 5)
    data_config.dir = str(tmp_path)
    with pytest.raises(UserError, match="photograph 'absent.png' is not in the installed package skimage"):
        load_dataset(data_config)
    assert not list((tmp_path / "polydigits" / "plain").iterdir())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("variant", "rotated", "config.data.variant is 'rotated'; allowed: plain, translated"),
        ("num_modalities", 6, "config.data.num_modalities is 6; allowed: 2 to 5"),
        ("num_modalities", 1, "config.data.num_modalities is 1; allowed: 2 to 5"),
        ("name", "mnist", "config.data.name is 'mnist'; allowed: celeba, cub, .*, polydigits"),
    ],
)
def test_wrong_fields(data_config, field, value, message):
    data_config[field] = value
    with pytest.raises(UserError, match=message):
        load_dataset(data_config)


def test_default_directory_obeys_the_cache_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert builders.data_directory("") == tmp_path / "mmvm_jax" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert builders.data_directory("") == pathlib.Path.home() / ".cache" / "mmvm_jax" / "data"
    assert builders.data_directory("~/data") == pathlib.Path.home() / "data"
