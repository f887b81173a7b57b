"""Batches: complete, without repetition, and resumable to the bit."""

import itertools
import json

import numpy as np
import pytest

from mmvm_jax.data import load_dataset
from mmvm_jax.data.batches import Batches, evaluation_batches
from mmvm_jax.data.dataset import Split, fingerprint
from mmvm_jax.errors import UserError


def numbered(count: int) -> Split:
    """A split whose every entry tells its example."""
    index = np.arange(count, dtype=np.int32)
    inputs = {"a": np.repeat(index[:, None], 3, axis=1), "b": -index}
    return Split(inputs, np.stack([index % 2 == 0, index % 3 > 0]), index + 100)


def assert_gathered(batch, split):
    """Every part of the batch belongs to the examples of its index."""
    for name, array in split.inputs.items():
        np.testing.assert_array_equal(batch.inputs[name], array[batch.index])
    np.testing.assert_array_equal(batch.present, split.present[:, batch.index])
    np.testing.assert_array_equal(batch.labels, split.labels[batch.index])
    assert batch.index.dtype == np.int32


def indices(batches, count: int) -> np.ndarray:
    return np.stack([batch.index for batch in itertools.islice(batches, count)])


def test_batches_are_full_and_consistent():
    split = numbered(23)
    batches = Batches(split, 5, seed=0)
    assert batches.order.steps_per_epoch == 4
    for batch in itertools.islice(batches, 9):
        assert batch.inputs["a"].shape == (5, 3) and batch.present.shape == (2, 5)
        assert_gathered(batch, split)


def test_an_epoch_repeats_nothing_and_the_next_has_another_order():
    epochs = indices(Batches(numbered(24), 6, seed=0), 12).reshape(3, 24)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(24), (3, 1)))
    assert len(np.unique(epochs, axis=0)) == 3


def test_the_remainder_differs_between_epochs():
    epochs = indices(Batches(numbered(23), 5, seed=0), 16).reshape(4, 20)
    assert all(len(np.unique(epoch)) == 20 for epoch in epochs)
    assert len(np.unique(epochs)) == 23


def test_the_seed_decides_the_order():
    first, again, other = (indices(Batches(numbered(30), 10, seed), 3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("steps", [0, 3, 4, 5, 9])  # an epoch has 4 batches
def test_resumes_to_the_bit(steps):
    straight = Batches(numbered(23), 5, seed=7)
    for _ in range(steps):
        next(straight)
    state = json.loads(json.dumps(straight.get_state()))
    resumed = Batches(numbered(23), 5, seed=0)
    next(resumed)
    resumed.set_state(state)
    assert resumed.get_state() == state
    np.testing.assert_array_equal(indices(straight, 10), indices(resumed, 10))
    assert straight.get_state() == resumed.get_state()


@pytest.mark.parametrize("batch_size", [0, 24])
def test_batch_size_must_fit(batch_size):
    with pytest.raises(UserError, match=f"config.train.batch_size is {batch_size}; allowed: 1 to 23"):
        Batches(numbered(23), batch_size, seed=0)


@pytest.mark.parametrize("batch_size", [5, 23, 50])
def test_evaluation_shows_everything_once_in_order(batch_size):
    split = numbered(23)
    seen, counted = [], 0
    for batch, valid in evaluation_batches(split, batch_size):
        assert len(batch.index) == batch_size
        assert_gathered(batch, split)
        seen.extend(batch.index[:valid])
        counted += valid
    assert seen == list(range(23)) and counted == 23


def test_fingerprint_sees_every_byte_but_not_the_mask():
    split = numbered(23)
    reference = fingerprint(split, split)
    assert reference == fingerprint(numbered(23), split._replace(present=~split.present))
    changed = split.inputs["b"].copy()
    changed[-1] += 1
    assert reference != fingerprint(split, split._replace(inputs={**split.inputs, "b": changed}))
    assert reference != fingerprint(split._replace(labels=split.labels + 1), split)


def test_modalities_are_selected_in_the_order_named(data_config):
    dataset = load_dataset(data_config, ("m2", "m0"))
    assert [modality.name for modality in dataset.modalities] == ["m2", "m0"]
    assert list(dataset.train.inputs) == ["m2", "m0"] and dataset.train.present.shape == (2, 400)


def test_modalities_may_be_named_as_on_a_command_line(data_config):
    assert [modality.name for modality in load_dataset(data_config, ("m2,m0",)).modalities] == ["m2", "m0"]


def test_training_examples_set_aside_stand_in_for_the_test_split(data_config):
    whole = load_dataset(data_config)
    data_config.validation = 0.25
    data = load_dataset(data_config)
    assert (len(data.train.labels), len(data.test.labels)) == (300, 100) and data.fingerprint != whole.fingerprint
    parts = [pictures for split in (data.train, data.test) for pictures in split.inputs["m1"]]
    seen = sorted(picture.tobytes() for picture in parts)
    assert seen == sorted(picture.tobytes() for picture in whole.train.inputs["m1"])  # and none of the test split
    again = load_dataset(data_config)
    np.testing.assert_array_equal(again.test.labels, data.test.labels)
    assert len(set(data.test.labels)) > 5  # at random, not the last ones of a sorted file


def test_a_share_of_nothing_cannot_be_set_aside(data_config):
    data_config.validation = 0.001
    with pytest.raises(UserError, match="config.data.validation is 0.001; allowed: a share of 400 training examples"):
        load_dataset(data_config)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("m0", "m3"), "config.modalities is 'm3'; allowed: m0, m1, m2"),
        (("m0", "m0"), "config.modalities is m0, m0; allowed: each name once"),
    ],
)
def test_wrong_modalities(data_config, names, message):
    with pytest.raises(UserError, match=message):
        load_dataset(data_config, names)
