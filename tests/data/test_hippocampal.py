"""Hippocampal spikes: trials paired by odour, split before they are cut into windows."""

import numpy as np
import pytest

from mmvm_jax.data import hippocampal
from mmvm_jax.errors import UserError

NUM_TRIALS = {"barat": 60, "buchanan": 53, "mitt": 58, "stella": 31, "superchris": 60}  # stella has fewer


def odours(rat: str) -> np.ndarray:
    """1 to 5, in an order of each rat's own."""
    rng = np.random.default_rng(len(rat))
    return rng.permutation(np.arange(NUM_TRIALS[rat]) % 5 + 1)


def counts(trial, neuron, time):
    """A number that tells where it comes from."""
    return 1000 * trial + 3 * neuron + time


@pytest.fixture
def raw_files(manual):
    folder = manual("hippocampal")
    for rat, (neurons, start) in hippocampal.RATS.items():
        (folder / rat.capitalize()).mkdir()
        info = np.zeros((NUM_TRIALS[rat], 6))
        info[:, 3] = odours(rat)
        np.save(folder / rat.capitalize() / f"{rat}_trial_info.npy", info)
        spikes = np.fromfunction(counts, (NUM_TRIALS[rat], neurons, start + 25 + 40))
        np.save(folder / rat.capitalize() / f"{rat}_spike_data_binned.npy", spikes)
    return folder


def trials(array: np.ndarray) -> np.ndarray:
    return (array[:, 0, 0] // 1000).astype(int)


@pytest.mark.parametrize("packed", [False, True])
def test_windows_of_paired_trials(packed, raw_files, load, pack):
    if packed:
        pack(raw_files / "Mitt", "data.zip")
    dataset = load("hippocampal")
    expected = [("barat", 92), ("buchanan", 79), ("mitt", 104), ("stella", 49), ("superchris", 46)]
    assert [(m.name, m.shape) for m in dataset.modalities] == [(rat, (n, 10)) for rat, n in expected]
    assert {(m.kind, m.likelihood, round(m.scale**2, 9)) for m in dataset.modalities} == {("counts", "normal", 0.5)}
    assert (dataset.class_names, dataset.label_kind) == (("A", "B", "C", "D"), "class")
    for split in (dataset.train, dataset.test):
        windows = np.arange(len(split.labels)) % 16
        for rat, (neurons, start) in hippocampal.RATS.items():
            array = split.inputs[rat]
            assert array.dtype == np.float32
            np.testing.assert_array_equal(odours(rat)[trials(array)] - 1, split.labels)
            first = counts(trials(array), 0, start + windows)
            np.testing.assert_array_equal(array[:, 0, 0], first)
            there = counts(0, np.arange(neurons)[:, None], np.arange(10))
            np.testing.assert_array_equal(array - first[:, None, None], np.broadcast_to(there, array.shape))


def test_trials_of_equal_rank_go_together_and_none_is_in_both_splits(raw_files, load):
    dataset = load("hippocampal")
    fewest = [min(np.sum(odours(rat) == odour) for rat in NUM_TRIALS) for odour in range(1, 5)]
    assert len(dataset.train.labels) + len(dataset.test.labels) == 16 * sum(fewest)
    for label, count in enumerate(fewest):
        ranks = {}
        for rat in NUM_TRIALS:
            of_odour = list(np.flatnonzero(odours(rat) == label + 1))
            ranks[rat] = [
                [of_odour.index(trial) for trial in trials(split.inputs[rat][split.labels == label])]
                for split in (dataset.train, dataset.test)
            ]
        assert all(theirs == ranks["barat"] for theirs in ranks.values())
        training, test = map(set, ranks["stella"])
        assert not training & test and training | test == set(range(count))
        assert len(training) == round(0.8 * count)


def test_some_rats(raw_files, load):
    assert list(load("hippocampal", ("stella", "barat")).train.inputs) == ["stella", "barat"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Mitt/mitt_trial_info.npy", None, "hippocampal: mitt_trial_info.npy is missing"),
        ("Mitt/mitt_spike_data_binned.npy", None, "hippocampal: mitt_spike_data_binned.npy is missing"),
        ("Mitt/mitt_trial_info.npy", lambda a: a[:, :3], r"shape \(58, 3\); expected \[trials, 4 or more\]"),
        (
            "Mitt/mitt_trial_info.npy",
            lambda a: a[1:],
            r"shape \(58, 104, 315\); expected \[57, 104, 275 or more",
        ),
        ("Mitt/mitt_spike_data_binned.npy", lambda a: a[:, 1:], r"shape \(58, 103, 315\)"),
        ("Mitt/mitt_spike_data_binned.npy", lambda a: a[:, :, :270], r"shape \(58, 104, 270\)"),
        ("Mitt/mitt_spike_data_binned.npy", lambda a: -a, "negative or missing counts"),
        ("Mitt/mitt_spike_data_binned.npy", lambda a: a * np.nan, "negative or missing counts"),
        (
            "Mitt/mitt_trial_info.npy",
            lambda a: a * (a != 4),
            "a rat has 0 trials of odour D; allowed: 2 or more",
        ),
    ],
)
def test_wrong_files(name, change, message, raw_files, load):
    path = raw_files / name
    if change is None:
        path.unlink()
    else:
        np.save(path, change(np.load(path)))
    with pytest.raises(UserError, match=message):
        load("hippocampal")


def test_all_missing_files_are_counted(raw_files, load):
    for name in ("Mitt/mitt_trial_info.npy", "Mitt/mitt_spike_data_binned.npy"):
        (raw_files / name).unlink()
    with pytest.raises(UserError, match="2 of 10 files, such as mitt_trial_info.npy, .* are missing"):
        load("hippocampal")


def test_the_whole_path(raw_files, quicktest):
    for path in raw_files.glob("*/*spike_data_binned.npy"):
        np.save(path, np.load(path) % 3)  # as few spikes as neurons fire
    values = quicktest("hippocampal", tuple(hippocampal.RATS)[:2])
    assert len([name for name in values if name.startswith("reconstruction/mse/")]) == 2
