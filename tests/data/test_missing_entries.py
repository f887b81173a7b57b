"""Missing entries and tables: what is read, standardised, refused, and kept in the description."""

import logging

import numpy as np
import pandas as pd
import pytest
import tiny

from mmvm_jax.data import dataset_from_arrays, units
from mmvm_jax.data.columns import infer
from mmvm_jax.data.description import describe, from_text, to_text
from mmvm_jax.data.frames import as_frames
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
        (changed("visits", -2.0), "column 'visits' of table 'patients' has -2; allowed: integers from 0 to"),
        (changed("smoker", 2), "column 'smoker' of table 'patients' has 2; allowed: integers from 0 to 1"),
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


def test_categories_may_be_numbers_and_small_tables_are_read():
    table = pd.DataFrame({"stage": pd.Categorical([1, 2, None, 3] * 50), "x": RNG.normal(size=N)})
    description = describe(load({"t": table, "split": SPLIT}))
    assert description.levels["t"] == {"stage": ("1", "2", "3")}
    for few in (table.iloc[:4], table.iloc[:4].astype({"stage": float})):
        (block,) = Inputs(description, MemoryRows({"t": few}, description.levels, description.columns)).blocks(4)
        np.testing.assert_array_equal(block.batch.inputs["t"][:, 0], [0, 1, np.nan, 2])
    with pytest.raises(UserError, match="column 'stage' of table 't' has '4'; allowed: 1, 2, 3, as in training"):
        MemoryRows({"t": table.iloc[:4].assign(stage=[1, 2, 4, 3])}, description.levels, description.columns)


def test_columns_that_training_did_not_have_are_not_read():
    table = pd.DataFrame({"sex": ["f", "m"] * 100, "x": RNG.normal(size=N)})
    description = describe(load({"t": table, "split": SPLIT}))
    wider = table.assign(day=pd.date_range("2020", periods=N), note=[f"patient {n}" for n in range(N)])
    (block,) = Inputs(description, MemoryRows({"t": wider}, description.levels, description.columns)).blocks(N)
    np.testing.assert_array_equal(block.batch.inputs["t"][:, 0], np.arange(N) % 2)


def test_two_columns_of_one_name_are_refused():
    table = pd.DataFrame(RNG.normal(size=(N, 2)), columns=["x", "x"])
    with pytest.raises(UserError, match="table 't' has two columns 'x'; allowed: each name once"):
        load({"t": table})


def test_only_real_columns_are_searched_for_codes(caplog):
    table = pd.DataFrame({"x": RNG.normal(size=N), "counts": RNG.negative_binomial(1, 0.002, N)})
    load({"t": table, "split": SPLIT})
    assert not any("standard deviations" in line for line in caplog.messages)


def test_a_model_may_expect_missing_entries_that_training_lacks():
    data = load({"a": RNG.normal(size=(N, 3)), "b": RNG.random((N, 8, 8)), "split": SPLIT}, missing_entries=True)
    assert [modality.missing_entries for modality in data.modalities] == [True, False]
    values = np.where(np.arange(3) == 1, np.nan, np.ones((4, 1)))
    (block,) = Inputs(describe(data), MemoryRows({"a": values})).blocks(4)
    assert np.isnan(block.batch.inputs["a"][:, 1]).all()


def test_intervals_are_categories_and_come_back(recwarn):
    ages = pd.Series(RNG.uniform(20, 90, N)).where(np.arange(N) % 9 > 0)
    table = pd.DataFrame(
        {"age": pd.cut(ages, [0, 40, 60, 120]), "code": RNG.integers(1, 6, N), "x": RNG.normal(size=N)}
    )
    description = describe(load({"t": table, "split": SPLIT}))
    assert [column.likelihood for column in description.modalities[0].columns] == ["categorical", "normal", "normal"]
    (block,) = Inputs(description, MemoryRows({"t": table}, description.levels, description.columns)).blocks(N)
    framed = as_frames({"t": table}, {"t": block.arrays["t"]}, description.columns, description.levels)["t"]
    pd.testing.assert_frame_equal(framed, table)


def test_row_numbers_are_labels_if_another_table_was_sorted(caplog):
    first = pd.DataFrame({"x": RNG.normal(size=N)})
    second = pd.DataFrame({"y": first["x"] + 1.0}).sort_values("y").iloc[5:]
    rows = MemoryRows({"a": first, "b": second})
    np.testing.assert_array_equal(rows.headers["b__present"], ~first["x"].isin(first["x"].nsmallest(5)))
    there = rows.headers["b__present"]
    np.testing.assert_array_equal(rows.headers["b"][there, 0], rows.headers["a"][there, 0] + 1.0)
    MemoryRows({"a": first.set_axis(range(N, 2 * N)), "b": first.set_axis([f"p{n}" for n in range(N)])})
    assert not caplog.messages  # row numbers beside names
    MemoryRows({"a": first.set_axis([f"P{n}" for n in range(N)]), "b": first.set_axis([f"p{n}" for n in range(N)])})
    assert "share no label; their rows are paired by position" in caplog.messages[-1]


def test_repeated_labels_are_rows_of_their_own_if_all_indexes_are_equal():
    table = pd.DataFrame({"x": RNG.normal(size=N)}, index=np.arange(N) // 2)
    assert MemoryRows({"a": table, "b": table}).headers["a"].shape == (N, 1)


def test_a_column_without_known_values_is_named():
    table = pd.DataFrame({"x": RNG.normal(size=N), "ferritin": np.nan})
    with pytest.raises(UserError, match="'t': column 'ferritin' has no known value in the training examples"):
        load({"t": table})
