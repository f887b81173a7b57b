"""Splits that stay on disk: the same batches as from memory, in the same order, and resumable."""

import itertools
import json

import jax
import numpy as np
import pytest

from mmvm_jax.data import load_dataset, on_disk
from mmvm_jax.data.batches import Batches, evaluation_batches
from mmvm_jax.data.dataset import without_empty


@pytest.fixture
def both(data_config):
    """The small polydigits in memory and on disk."""
    in_memory = load_dataset(data_config)
    data_config.memory_gb = 0.0
    return in_memory, load_dataset(data_config)


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_the_budget_decides(data_config):
    size = 400 * 3 * 28 * 28 * 3  # of the training inputs; the test split is smaller
    data_config.memory_gb = (size - 1) / 1e9
    dataset = load_dataset(data_config)
    assert isinstance(dataset.train.inputs, on_disk.StoredInputs)
    assert isinstance(dataset.test.inputs, dict)
    data_config.memory_gb = size / 1e9
    assert isinstance(load_dataset(data_config).train.inputs, dict)


def test_batches_are_those_from_memory(both):
    ours, theirs = (Batches(dataset.train, 60, seed=3) for dataset in both)
    for first, second in itertools.islice(zip(ours, theirs, strict=True), 15):  # an epoch has 6
        assert_equal(first, second)
        assert second.inputs["m0"].dtype == np.uint8
        assert ours.get_state() == theirs.get_state()


@pytest.mark.parametrize("steps", [0, 5, 6, 8])
def test_resumes_to_the_bit(steps, both):
    straight = Batches(both[1].train, 60, seed=3)
    for _ in range(steps):
        next(straight)
    resumed = Batches(both[1].train, 60, seed=0)
    next(resumed)
    resumed.set_state(json.loads(json.dumps(straight.get_state())))
    for _ in range(8):
        assert_equal(next(straight), next(resumed))


def test_evaluation_batches_are_those_from_memory(both):
    ours, theirs = (list(evaluation_batches(dataset.test, 30)) for dataset in both)
    assert [count for _, count in theirs] == [30, 30, 20]
    for (first, _), (second, _) in zip(ours, theirs, strict=True):
        assert_equal(first, second)


def test_chosen_examples(both):
    in_memory, stored = (dataset.train.inputs for dataset in both)
    assert list(stored) == list(in_memory) and len(stored) == 3
    for rows in (7, [5, 399, 5], slice(2, 6), np.arange(400) % 100 == 7):
        np.testing.assert_array_equal(stored["m1"][rows], in_memory["m1"][rows])
    assert stored["m1"].shape == in_memory["m1"].shape and len(stored["m1"]) == 400


def test_without_empty(both):
    present = np.tile(np.arange(400) % 3 > 0, (3, 1))
    ours, theirs = (without_empty(dataset.train._replace(present=present)) for dataset in both)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    for name, array in ours.inputs.items():
        np.testing.assert_array_equal(array, theirs.inputs[name][:])


def test_fingerprint_tells_data_apart(both, data_config):
    stored = both[1]
    assert stored.fingerprint == load_dataset(data_config).fingerprint
    data_config.variant = "translated"
    assert stored.fingerprint != load_dataset(data_config).fingerprint
    data_config.variant = "plain"
    assert stored.fingerprint != load_dataset(data_config, ("m0", "m1")).fingerprint


def test_an_error_while_reading_arrives():
    def fail(step):
        raise KeyError(step)

    with pytest.raises(KeyError):
        next(on_disk.read_ahead(fail, range(10)))
