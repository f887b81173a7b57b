"""Outputs come back in the form of the tables that were given."""

import numpy as np
import pandas as pd

from mmvm_jax.data.frames import as_frames

TABLE = pd.DataFrame(
    {
        0: pd.Series([1, 2, 3], dtype="uint8"),
        "stage": pd.Categorical([2, 1, 2], ordered=True),
        "sex": ["f", None, "f"],
        "ill": [True, False, True],
        "age": pd.array([1, None, 3], dtype="Int64"),
        "smokes": pd.Series([True, None, False], dtype=object),
    },
    index=[0, 1, 2],
).set_axis(pd.Index(["a", "b", "c"], name="patient"))
COLUMNS = ("age", "sex", "0", "stage", "ill", "smokes")  # in the order of training
ARRAY = np.array([[40.4, 0, -7.2, 1, 0.2, 1], [50.6, 1, 300.0, 2, 0.9, 0.7], [1.0, 0, 2.0, 0, 0.6, 0]])
LEVELS = {"sex": ("f", "m"), "stage": ("1", "2", "3")}


def test_index_columns_types_and_categories_are_those_of_the_table():
    outputs = {"t": ARRAY, "t__std": ARRAY, "t__mean": np.ones((3, 2)), "other": np.ones((3, 4))}
    given = {"t": TABLE, "other": np.zeros((3, 4))}
    framed = as_frames(given, outputs, {"t": COLUMNS, "other": ("a", "b", "c", "d")}, {"t": LEVELS})
    table = framed["t"]
    pd.testing.assert_index_equal(table.index, TABLE.index)
    pd.testing.assert_index_equal(table.columns, TABLE.columns)
    assert list(table[0]) == [0, 255, 2] and table[0].dtype == "uint8"
    assert list(table["stage"]) == [2, "3", 1] and table["stage"].dtype.ordered  # the table lacks the category 3
    assert list(table["sex"]) == ["f", "m", "f"]
    assert list(table["ill"]) == [False, True, True] and table["ill"].dtype == bool
    assert list(table["age"]) == [40, 51, 1] and table["age"].dtype == "Int64"
    assert list(table["smokes"]) == [True, True, False] and table["smokes"].dtype == object
    np.testing.assert_array_equal(framed["t__std"]["age"], ARRAY[:, 0])
    assert list(framed["t__mean"].index) == ["a", "b", "c"] and isinstance(framed["other"], np.ndarray)


def test_a_table_that_was_not_given_has_the_columns_of_training():
    outputs = {"t": ARRAY, "new": np.array([[0.0, 2.5], [1, 3], [np.nan, 4]]), "new__std": np.ones((3, 2))}
    columns, levels = {"t": COLUMNS, "new": ("sex", "age")}, {"t": LEVELS, "new": {"sex": ("f", "m")}}
    framed = as_frames({"t": TABLE}, outputs, columns, levels)
    assert list(framed["new"]["sex"]) == ["f", "m", None] and list(framed["new"]["age"]) == [2.5, 3, 4]
    assert list(framed["new"].index) == ["a", "b", "c"] and list(framed["new__std"].columns) == ["sex", "age"]


def test_a_table_with_fewer_columns_and_other_rows():
    other = pd.DataFrame({"x": [1.0, 2.0]}, index=["c", "d"])
    outputs = {"t": np.ones((4, 6)), "u": np.arange(4.0)[:, None]}
    framed = as_frames({"t": TABLE, "u": other}, outputs, {"t": COLUMNS, "u": ("x",)}, {"t": LEVELS})
    assert list(framed["t"].index) == list(framed["u"].index) == ["a", "b", "c", "d"]
    assert framed["t"].index.name == "patient" and list(framed["u"]["x"]) == [0.0, 1.0, 2.0, 3.0]


def test_arrays_stay_arrays():
    outputs = {"t": ARRAY}
    assert as_frames({"t": TABLE.to_numpy()}, outputs, {"t": COLUMNS}, {}) is outputs


def test_a_column_of_text_that_is_all_missing_is_filled_in_as_text():
    given = pd.DataFrame({"sex": [np.nan, np.nan]})
    assert list(as_frames({"t": given}, {"t": np.zeros((2, 1))}, {"t": ("sex",)}, {"t": LEVELS})["t"]["sex"]) == [
        "f",
        "f",
    ]
