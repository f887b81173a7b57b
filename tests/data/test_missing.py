"""The laws of what is absent, within five standard deviations of their sample sizes."""

import numpy as np
import pytest

from mmvm_jax.data import load_dataset, missing
from mmvm_jax.errors import UserError

N = 20_000


def assert_share(mask, probability):
    deviation = np.sqrt(probability * (1 - probability) / mask.size)
    assert abs(mask.mean() - probability) <= 5 * deviation + 1e-12


@pytest.mark.parametrize("pattern", ["random", "paired_fraction", "one_modality"])
def test_rate_zero_removes_nothing(pattern):
    assert missing.draw_presence(pattern, 0.0, 3, 100, seed=0, modality=1).all()


@pytest.mark.parametrize("pattern", ["random", "paired_fraction", "one_modality"])
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_no_example_is_empty_and_the_seed_decides(pattern, rate):
    present = missing.draw_presence(pattern, rate, 3, 500, seed=1, modality=1)
    assert present.shape == (3, 500) and present.dtype == bool
    assert present.any(axis=0).all()
    longer = missing.draw_presence(pattern, rate, 3, 700, seed=1, modality=1)
    np.testing.assert_array_equal(present, longer[:, :500])
    if rate < 1 or pattern != "one_modality":
        assert (present != missing.draw_presence(pattern, rate, 3, 500, seed=2, modality=1)).any()


@pytest.mark.parametrize("rate", [0.2, 0.7, 1.0])
def test_random(rate):
    present = missing.draw_presence("random", rate, 3, N, seed=3)
    for row in present:
        assert_share(~row, rate - rate**3 / 3)
    assert_share(present.all(axis=0), (1 - rate) ** 3)
    assert_share(present.sum(axis=0) == 2, 3 * rate * (1 - rate) ** 2)
    # Absences of two modalities are independent up to the examples that would be empty.
    assert_share(~present[0] & ~present[1], rate**2 - rate**3 * 2 / 3)


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_paired_fraction(rate):
    present = missing.draw_presence("paired_fraction", rate, 3, N, seed=4)
    count = present.sum(axis=0)
    assert set(np.unique(count)) <= {1, 3}
    assert_share(count == 3, 1 - rate)
    for row in present[:, count == 1]:
        assert_share(row, 1 / 3)


@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_one_modality(rate):
    present = missing.draw_presence("one_modality", rate, 3, N, seed=5, modality=2)
    assert present[:2].all()
    assert_share(~present[2], rate)


@pytest.mark.parametrize(
    ("pattern", "rate", "num_modalities", "message"),
    [
        ("none", 0.5, 3, "missing.pattern is 'none'; allowed: one_modality, paired_fraction, random"),
        ("random", 1.5, 3, "config.data.missing.rate is 1.5; allowed: 0 to 1"),
        ("random", -0.1, 3, "config.data.missing.rate is -0.1; allowed: 0 to 1"),
        ("random", float("nan"), 3, "config.data.missing.rate is nan; allowed: 0 to 1"),
        ("one_modality", 1.0, 1, "'one_modality' at rate 1.0 with 1 modality; allowed: 2 or more modalities"),
    ],
)
def test_wrong_requests(pattern, rate, num_modalities, message):
    with pytest.raises(UserError, match=message):
        missing.draw_presence(pattern, rate, num_modalities, 10, seed=0, modality=0)


@pytest.mark.parametrize(
    ("split", "complete"), [("train", (False, True)), ("test", (True, False)), ("all", (False, False))]
)
def test_load_dataset_removes_from_the_splits_named(data_config, split, complete):
    data_config.missing.update({"rate": 0.5, "split": split})
    dataset = load_dataset(data_config)
    assert (dataset.train.present.all(), dataset.test.present.all()) == complete
    size = len(dataset.test.labels)
    assert split != "all" or (dataset.train.present[:, :size] != dataset.test.present).any()


def test_load_dataset_removes_the_modality_named(data_config):
    data_config.missing.update({"pattern": "one_modality", "rate": 1.0, "modality": "m0"})
    dataset = load_dataset(data_config, ("m2", "m0"))
    np.testing.assert_array_equal(dataset.train.present.mean(axis=1), [1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "validation"}, "config.data.missing.split is 'validation'; allowed: all, test, train"),
        ({"pattern": "one_modality"}, "config.data.missing.modality is ''; allowed: m0, m1, m2"),
    ],
)
def test_load_dataset_refuses(data_config, changes, message):
    data_config.missing.update(changes)
    with pytest.raises(UserError, match=message):
        load_dataset(data_config)
