"""Columns far from zero keep their precision from the user's array to what is made of it; constants keep their unit."""

import numpy as np
import pytest
import tiny

from mmvm_jax.data import dataset_from_arrays, units
from mmvm_jax.data.dataset import Split
from mmvm_jax.data.description import describe, from_text, to_text

N = 400
SECONDS = np.sort(np.random.default_rng(0).uniform(0, 600, N))  # ten minutes
FAR = {
    "Unix seconds": 1.7e9 + SECONDS,
    "Unix nanoseconds": (1.7e18 + SECONDS * 1e9).astype(np.int64),
    "Julian dates": 2460000.5 + SECONDS / 86400,
    "genome positions": (2e8 + SECONDS * 10).astype(np.int64),
    "latitudes": 47.3769 + SECONDS * 1e-7,
    "big-endian": (1.7e9 + SECONDS).astype(">f8"),
}


@pytest.mark.parametrize("kind", FAR)
def test_what_lies_far_from_zero_is_told_apart(kind):
    column, is_test = FAR[kind], np.arange(N) % 5 == 0
    dataset = dataset_from_arrays({"t": np.stack([column, column], 1), "split": is_test}, tiny.config().data)
    seen, exact = dataset.train.inputs["t"][:, 0], column[~is_test].astype(np.longdouble)
    exact = ((exact - exact.mean()) / exact.std()).astype(float)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, exact, atol=2e-6)


@pytest.mark.parametrize("kind", FAR)
def test_and_comes_back_to_a_millionth_of_its_spread(kind):
    array = np.stack([FAR[kind], FAR[kind]], 1)
    description = from_text(to_text(describe(dataset_from_arrays({"t": array}, tiny.config().data))))
    (modality,) = description.modalities
    values = description.to_model(modality, array, np.ones(N, bool))
    offset, scale = description.unit(modality, array.dtype)
    restored = values * scale + offset
    assert restored.dtype == description.generated_type(modality) == np.float64
    spread = FAR[kind].astype(np.longdouble).std()
    assert np.abs(restored - array.astype(np.longdouble)).max() < 1e-6 * spread


def scale_of(array, **changes) -> np.ndarray:
    split = Split({"v": array}, np.ones((1, len(array)), bool), np.zeros(len(array), np.int32))
    return units.standardise(split, split, {"v": 0})[2]["v"][1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64])
@pytest.mark.parametrize("value", [100.0, 14.62, 0.1, 1e-3, 1.0 / 3, 60_000.0])
def test_what_never_varies_keeps_its_unit(value, dtype):
    constant = np.full((801, 2), value, dtype)
    np.testing.assert_array_equal(scale_of(constant), 1)


def test_rounding_is_no_variation():
    noise = np.random.default_rng(0).integers(-1, 2, (801, 1))
    for dtype in (np.float64, np.float32):
        values = dtype(14.62) + noise.astype(dtype) * np.spacing(dtype(14.62))
        assert len(np.unique(values)) > 1 and scale_of(values) == 1
    coarse = (1.7e9 + 300 * noise).astype(np.float32)  # steps of 128
    assert 100 < scale_of(coarse)[0] < 1000  # neither 1, which would leave hundreds, nor a division by nothing


def test_blocks_of_any_size_give_the_moments_of_the_whole():
    values = 1e6 + np.random.default_rng(0).normal(size=(1000, 3))
    blocks = [values[:1], values[1:1], values[1:700], values[700:]]
    mean, scale = units.measure(blocks, (3,), values.dtype)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(scale, values.std(axis=0), rtol=1e-9)


def test_absent_examples_do_not_count_and_become_zeros():
    values = np.array([[1.0], [3.0], [1e300]])
    there = np.array([True, True, False])
    unit = units.measure([values[there]], (1,), values.dtype)
    assert unit == (2.0, 1.0)
    np.testing.assert_array_equal(units.apply(values, there, unit), [[-1], [1], [0]])
