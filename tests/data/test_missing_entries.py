"""Missing entries and tables: what is read, standardised, refused, and kept in the description."""

import logging

import numpy as np
import pandas as pd
import pytest
import tiny

from mmvm_jax.data import dataset_from_arrays, units
from mmvm_jax.data.columns import infer
from mmvm_jax.data.description import describe, from_text, to_text
from mmvm_jax.data.inputs import Inputs
from mmvm_jax.data.rows import MemoryRows
from mmvm_jax.errors import UserError
from mmvm_jax.types import Column

N = 200
RNG = np.random.default_rng(0)
SPLIT = np.arange(N) % 5 == 0


def holes(values, share=0.2, seed=0):
    values = np.array(values, float)
    values[np.random.default_rng(seed).random(values.shape) < share] = np.nan
    return values


def patients():
    """A table with each kind of column, all with missing entries."""
    return pd.DataFrame({
        "sodium": holes(RNG.normal(140, 5, N)),
        "age": pd.array(np.where(np.arange(N) % 7 == 0, None, RNG.integers(20, 90, N)), dtype="Int64"),
        "smoker": pd.array(np.where(np.arange(N) % 3 == 0, None, np.arange(N) % 2 == 0), dtype="boolean"),
        "visits": holes(RNG.poisson(2.0, N)),
        "sex": np.where(np.arange(N) % 11 == 0, None, np.where(np.arange(N) % 2, "m", "f")),
        "stage": pd.Categorical(np.where(np.arange(N) % 13 == 0, None, np.array(["I", "II", "III"])[np.arange(N) % 3])),
    })  # fmt: skip


def load(arrays, **fields):
    config = tiny.config().data
    config.update(fields)
    return dataset_from_arrays(arrays, config)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (holes(RNG.normal(5, 2, (N, 4))), "vector"),
        (holes(RNG.normal(5, 2, (N, 4, 3))), "vector"),
        (holes(RNG.poisson(2.0, (N, 4))), "counts"),
        (holes(RNG.random((N, 4)) < 0.3), "binary"),
        (np.ma.masked_array(RNG.normal(size=(N, 4)), RNG.random((N, 4)) < 0.2), "vector"),
        (pd.DataFrame(holes(RNG.normal(size=(N, 4)))), "vector"),
        (pd.DataFrame(RNG.integers(0, 2, (N, 4)), dtype="Int64").mask(RNG.random((N, 4)) < 0.2), "binary"),
    ],
)
def test_missing_entries_are_nan_in_the_inputs(values, kind):
    data = load({"a": values, "b": RNG.normal(size=(N, 2)), "split": SPLIT})
    modality, inputs = data.modalities[0], data.train.inputs["a"]
    assert (modality.kind, modality.missing_entries, data.modalities[1].missing_entries) == (kind, True, False)
    if isinstance(values, pd.DataFrame):
        given = values.to_numpy(float, na_value=np.nan)
    else:
        given = np.ma.filled(np.ma.asarray(values).astype(float), np.nan)
    np.testing.assert_array_equal(np.isnan(inputs), np.isnan(given[~SPLIT]))
    if kind == "vector":
        mean, scale = data.units["a"]
        np.testing.assert_allclose(mean, np.nanmean(given[~SPLIT], axis=0), rtol=1e-12)
        np.testing.assert_allclose(scale, np.nanstd(given[~SPLIT], axis=0), rtol=1e-12)
        np.testing.assert_allclose(inputs * scale + mean, given[~SPLIT], rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(inputs, given[~SPLIT])


def test_units_of_blocks_with_holes_are_those_of_the_whole():
    values = holes(RNG.normal(size=(N, 3)) + 1e6, 0.5)
    values[:, 2] = np.nan
    values[:40, 0] = np.nan  # a column that begins unknown
    blocks = [values[:7], values[7:40], values[40:40], values[40:]]
    mean, scale = units.measure(blocks, (3,), values.dtype)
    np.testing.assert_allclose(mean, [*np.nanmean(values[:, :2], axis=0), 0.0], rtol=1e-12)
    np.testing.assert_allclose(scale, [*np.nanstd(values[:, :2], axis=0), 1.0], rtol=1e-9)


def test_each_column_of_a_table_has_its_likelihood(caplog):
    caplog.set_level(logging.INFO, "mmvm_jax")
    data = load({"patients": patients(), "b": RNG.normal(size=(N, 2)), "split": SPLIT})
    modality = data.modalities[0]
    likelihoods = [(column.likelihood, column.levels) for column in modality.columns]
    expected = [("normal", 1), ("normal", 1), ("bernoulli", 1), ("poisson", 1), ("bernoulli", 1), ("categorical", 3)]
    assert (modality.kind, modality.likelihood, likelihoods) == ("table", "by_column", expected)
    assert data.levels["patients"] == {"sex": ("f", "m"), "stage": ("I", "II", "III")}
    assert any("1 columns categorical: stage" in line for line in caplog.messages)
    mean, scale = data.units["patients"]
    np.testing.assert_array_equal(mean[2:], 0)
    np.testing.assert_array_equal(scale[2:], 1)
    stage = data.train.inputs["patients"][:, 5]
    np.testing.assert_array_equal(stage[~np.isnan(stage)], (np.arange(N) % 3)[(np.arange(N) % 13 != 0) & ~SPLIT][:N])


def test_a_description_with_tables_survives_its_text():
    description = describe(load({"patients": patients(), "split": SPLIT}))
    restored = from_text(to_text(description))
    assert restored.modalities == description.modalities and restored.levels == description.levels
    (block,) = Inputs(restored, MemoryRows({"patients": patients().iloc[:, ::-1]}, restored.levels)).blocks(N)
    (expected,) = Inputs(description, MemoryRows({"patients": patients()}, description.levels)).blocks(N)
    # ``patients`` draws anew, but what is known and the categories are the same.
    np.testing.assert_array_equal(block.batch.inputs["patients"][:, 4:], expected.batch.inputs["patients"][:, 4:])


def changed(column, value):
    table = patients().astype({column: object})
    table.loc[3, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (changed("stage", "IV"), "column 'stage' of table 'patients' has 'IV'; allowed: I, II, III, as in training"),
        (changed("visits", "many"), "column 'visits' of table 'patients' has text; allowed: numbers, as in training"),
        (changed("visits", -2.0), "column 3 of table 'patients' has -2; allowed: integers from 0 to"),
        (changed("smoker", 2), "column 2 of table 'patients' has 2; allowed: integers from 0 to 1"),
        (patients().drop(columns="age"), "table 'patients' has no column 'age'"),
    ],
)
def test_tables_unlike_those_of_training_are_refused(table, message):
    description = describe(load({"patients": patients(), "split": SPLIT}))
    with pytest.raises(UserError, match=message):
        list(Inputs(description, MemoryRows({"patients": table}, description.levels)).blocks(N))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": holes(RNG.random((N, 8, 8)), 0.01)}, "'a' has NaN in .* single entries may be missing in vectors"),
        ({"a": pd.DataFrame({"x": RNG.normal(size=N), "day": pd.date_range("2020", periods=N)})}, "column day .*dates"),
    ],
)
def test_what_cannot_be_missing_or_read_is_refused(arrays, message):
    with pytest.raises(UserError, match=message):
        load(arrays | {"b": RNG.normal(size=(N, 2))})


def test_a_model_of_complete_data_refuses_missing_entries():
    description = describe(load({"a": RNG.normal(size=(N, 3)), "split": SPLIT}))
    with pytest.raises(UserError, match="'a' has NaN in 1 examples, the first is 4"):
        values = RNG.normal(size=(N, 3))
        values[4, 1] = np.nan
        list(Inputs(description, MemoryRows({"a": values})).blocks(N))


def test_likelihoods_of_columns():
    columns = np.stack([RNG.normal(size=N), RNG.integers(0, 2, N), RNG.poisson(9, N), RNG.negative_binomial(1, 0.1, N)])
    taken = infer(["a", "b", "c", "d"], columns.T, {})
    assert [column.likelihood for column in taken] == ["normal", "bernoulli", "normal", "poisson"]
    assert taken[3] == Column("poisson", rate=float(columns[3].mean()))
