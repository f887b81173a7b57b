"""Arrays in the forms that people have: understood, or refused with what was seen and what to do."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import tiny

from mmvm_jax.data import dataset_from_arrays, own_data
from mmvm_jax.data.containers import as_arrays
from mmvm_jax.data.description import describe, from_text, to_text
from mmvm_jax.data.inputs import Inputs
from mmvm_jax.data.rows import MemoryRows
from mmvm_jax.errors import UserError

N = 50
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 5)), RNG.normal(size=(N, 3))
THERE = np.arange(N) != 3
PIXELS = RNG.integers(0, 256, (N, 8, 8, 3))


class Frame:
    """Has what is read of a pandas DataFrame or Series."""

    def __init__(self, values, index=None, columns=None):
        self._values, self.columns = np.asarray(values), columns
        self.index = list(range(len(self._values)) if index is None else index)

    def __array__(self, dtype=None, copy=None):
        return self._values


def read(arrays, modalities=(), **fields):
    config = tiny.config().data
    config.update(fields)
    return dataset_from_arrays(MemoryRows(arrays).headers, config, modalities)


def gap(values):
    return np.where(THERE[:, None], values, np.nan)


UNDERSTOOD = {
    "float16": (X.astype(np.float16), "vector"),
    "another byte order": (RNG.poisson(1, (N, 4)).astype(">i4"), "counts"),
    "long double": (X.astype(np.longdouble), "vector"),
    "sparse": (scipy.sparse.csr_matrix(np.maximum(X, 0)), "vector"),
    "sparse array": (scipy.sparse.coo_array(np.maximum(X, 0)), "vector"),
    "lists": (X.tolist(), "vector"),
    "objects": (X.astype(object), "vector"),
    "whole objects": (np.ones((N, 2), int).astype(object), "binary"),
    "JAX": (jnp.asarray(X), "vector"),
    "bfloat16": (jnp.asarray(X, jnp.bfloat16), "vector"),
    "frame": (Frame(X), "vector"),
    "nothing masked": (np.ma.masked_array(X), "vector"),
    "pixels in 0 to 1 but for rounding": (np.where(PIXELS == 255, 1 + 1e-6, PIXELS / 255), "image"),
    "series in 0 to 1": (RNG.random((N, 100, 3)), "vector"),
    "RGBA": (RNG.integers(0, 256, (N, 8, 8, 4)), "image"),
}


@pytest.mark.parametrize("form", UNDERSTOOD)
def test_understood(form):
    given, kind = UNDERSTOOD[form]
    dataset = read({"a": given, "b": Y})
    assert [modality.kind for modality in dataset.modalities] == [kind, "vector"] and dataset.train.present.all()


GAPS = {
    "NaN": gap(X),
    "NaN in float32": gap(X).astype(np.float32),
    "one number": gap(X[:, :1]),
    "None in a list": [row if there else None for row, there in zip(X, THERE, strict=True)],
    "None among objects": np.array([row if there else None for row, there in zip(X, THERE, strict=True)], object),
    "None in a table": np.where(THERE[:, None], X, None),
    "a mask": np.ma.masked_array(X, np.broadcast_to(~THERE[:, None], X.shape)),
}


@pytest.mark.parametrize("form", GAPS)
def test_an_example_without_values_is_absent(form):
    dataset = read({"a": GAPS[form], "b": Y, "split": np.arange(N) >= 40})
    np.testing.assert_array_equal(dataset.train.present, [THERE[:40], np.ones(40)])
    inputs = Inputs(describe(dataset), MemoryRows({"a": GAPS[form], "b": Y}))
    np.testing.assert_array_equal(inputs.present[0], THERE)
    assert all(np.isfinite(values).all() for block in inputs.blocks(16) for values in block.batch.inputs.values())


def test_a_mask_of_objects():
    present = read({"a": X, "a__present": THERE.astype(object), "b": Y, "split": np.arange(N) >= 40}).train.present
    np.testing.assert_array_equal(present, [THERE[:40], np.ones(40)])


def test_a_modality_that_is_none_is_left_out(caplog):
    caplog.set_level("INFO", "mmvm_jax")
    assert [modality.name for modality in read({"a": X, "b": None, "b__present": THERE}).modalities] == ["a"]
    assert "array 'b' is None and left out" in caplog.messages


REFUSED = {
    "complex": (X + 1j, "is complex128 .*numpy.concatenate"),
    "text of numbers": (X.astype(str), r"is <U32 \[50, 5\]; .*a.astype\(float\)"),
    "records": (np.zeros(N, [("u", float)]), "structured_to_unstructured"),
    "dates": (np.zeros((N, 2), "M8[D]"), r"a.astype\('M8\[s\]'\).astype\(float\)"),
    "one axis": (X[:, 0], r"one number per example is \[N, 1\], as a\[:, None\]"),
    "ids in a column": (
        Frame(np.column_stack([X.astype(object), [f"s{n}" for n in range(N)]]), columns=[*"uvwxy", "id"]),
        "column 'id' of table 'a' has .* different texts, such as 's0'; allowed: up to 64 categories; leave",
    ),
    "channels first": (RNG.integers(0, 255, (N, 3, 32, 32), np.uint8), r"3 channels before .*moveaxis\(a, 1, -1\)"),
    "one channel first": (RNG.random((N, 1, 28, 28)), "1 channels before height and width"),
    "pixels as real numbers": (PIXELS.astype(float), r"from 0 to 255, like pictures.*a.astype\('uint8'\)"),
    "pixels from -1": (PIXELS / 127.5 - 1, r"like pictures .*\(a \+ 1\) / 2"),
    "16 bits": (RNG.integers(0, 4096, (N, 8, 8), np.uint16), "integer image with values from .* as by a / 4095.0"),
    "fewer": (X[:40], "the arrays differ in length: a 40, b 50"),
    "ragged": ([[1], [1, 2]] * 25, "'a' is not an array"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_refused(form):
    given, message = REFUSED[form]
    with pytest.raises(UserError, match=message) as error:
        read({"a": given, "b": Y})
    assert str(error.value).isprintable()


def test_what_is_refused_by_its_looks_can_be_named():
    for form in ("channels first", "pixels as real numbers", "pixels from -1"):
        assert read({"a": REFUSED[form][0]}, kinds="a=vector").modalities[0].kind == "vector"


def test_arrays_that_a_sparse_matrix_is_saved_as(tmp_path):
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.csr_matrix(np.eye(3)))
    with np.load(tmp_path / "a.npz") as arrays, pytest.raises(UserError, match=r"sparse matrix .*toarray\(\)"):
        read(dict(arrays))


NAMES = {
    "sample_ids": np.array([f"s{i}" for i in range(N)]),
    "a_names": np.array(list("abcde")),
    "barcodes": np.array([f"s{i}" for i in range(N)], object),
    "patient_id": np.arange(N) + 1000,
    "date": np.zeros(N, "M8[D]"),
    "version": np.array("1.0"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_left_out_with_a_word(name, caplog):
    dataset = read({"a": X, name: NAMES[name], "b": Y})
    assert [modality.name for modality in dataset.modalities] == ["a", "b"]
    assert any(f"array '{name}' is" in message and "left out" in message for message in caplog.messages)
    assert Inputs(describe(dataset), MemoryRows({"b": Y, name: NAMES[name]})).length == N


@pytest.mark.parametrize("modalities", [("b", "a"), ("b,a",)])
def test_named_modalities_are_enough(modalities, tmp_path):
    others = {
        "batch": np.arange(N),
        "text": np.full((N, 2), "x"),
        "short": X[:7],
        "mean": X,
        "bad": np.full((N, 2), np.inf),
    }
    dataset = read({"a": X, "b": Y, **others}, modalities, kinds="short=counts")
    assert [modality.name for modality in dataset.modalities] == ["b", "a"]
    with pytest.raises(UserError, match="config.modalities is 'c'; allowed: a, b, bad, batch, mean, short, text"):
        read({"a": X, "b": Y, **others}, ("a", "c"))


def test_tables_are_aligned_by_their_indexes(caplog):
    caplog.set_level("INFO", logger="mmvm_jax")
    index = [f"s{i}" for i in range(N)]
    whole = read({"a": Frame(X, index), "b": Frame(Y, index), "labels": Frame(np.arange(N) % 2, index)})
    assert "aligned" not in caplog.text
    shuffled = read({"a": Frame(X, index), "b": Frame(Y[::-1], index[::-1]), "labels": Frame(np.arange(N) % 2, index)})
    for name in ("a", "b"):
        np.testing.assert_array_equal(shuffled.train.inputs[name], whole.train.inputs[name])
    np.testing.assert_array_equal(shuffled.train.labels, whole.train.labels)
    assert f"tables are aligned by their indexes: {N} examples, of which 0 lack 'a'" in caplog.text


def test_an_example_without_a_row_lacks_the_table():
    index = [f"s{i}" for i in range(N)]
    frames = {"a": Frame(X[5:], index[5:]), "b": Frame(Y[: N - 3], index[: N - 3])}
    arrays = as_arrays(frames | {"labels": Frame(np.arange(3, N) % 2, index[3:])})
    order = [*range(5, N), *range(5)]  # of the first appearance
    np.testing.assert_array_equal(arrays["a"][: N - 5], X[5:])
    np.testing.assert_array_equal(arrays["a__present"], [row >= 5 for row in order])
    np.testing.assert_array_equal(arrays["b__present"], [row < N - 3 for row in order])
    np.testing.assert_array_equal(arrays["b"][arrays["b__present"]], Y[[row for row in order if row < N - 3]])
    np.testing.assert_array_equal(arrays["labels"], [row % 2 if row >= 3 else -1 for row in order])


def test_masks_are_aligned_with_their_tables():
    index, seen = [f"s{i}" for i in range(N)], np.arange(N) % 3 == 0
    arrays = as_arrays({
        "a": Frame(X, index), "b": Frame(Y[::-1], index[::-1]), "b__present": Frame(seen[::-1], index[::-1]),
    })  # fmt: skip
    np.testing.assert_array_equal(arrays["b__present"], seen)
    numbers = Frame(seen[::-1].astype(float), index[::-1])  # as a table stores a mask with gaps
    of_numbers = as_arrays({"a": Frame(X, index), "b": Frame(Y[::-1], index[::-1]), "b__present": numbers})
    np.testing.assert_array_equal(of_numbers["b__present"], seen)
    positional = as_arrays({"a": Frame(X, index), "b": Frame(Y[::-1], index[::-1]), "b__present": seen[::-1]})
    np.testing.assert_array_equal(positional["b__present"], seen)


def test_tables_that_cannot_be_aligned_are_named():
    index = [f"s{i}" for i in range(N)]
    with pytest.raises(UserError, match="'labels' has no index, but the tables a, b have different ones"):
        read({"a": Frame(X, index), "b": Frame(Y, index[::-1]), "labels": np.arange(N) % 2})
    with pytest.raises(UserError, match="'b__present' has 3 entries; allowed: 50, one per row of its table"):
        read({"a": Frame(X, index), "b": Frame(Y, index[::-1]), "b__present": np.ones(3)})
    with pytest.raises(UserError, match="the index of table 'b' has 's0' twice"):
        read({"a": Frame(X, index), "b": Frame(Y, ["s0", *index[:-1]])})
    others = [f"t{i}" for i in range(N)]
    np.testing.assert_array_equal(as_arrays({"a": Frame(X, index), "b": Frame(Y, others)})["b"], Y)  # by position


def test_columns_are_read_by_name():
    dataset = dataset_from_arrays({"a": Frame(X, columns=[*"uvwxy"]), "b": Y}, tiny.config().data)
    description = from_text(to_text(describe(dataset)))
    (expected,) = Inputs(description, MemoryRows({"a": X})).blocks(N)
    order = [1, 0, 3, 2, 4]
    more = np.concatenate([X[:, order], X[:, :1]], axis=1)
    for given in (
        Frame(X, columns=[*"uvwxy"]),
        Frame(X[:, order], columns=[*"vuxwy"]),
        Frame(more, columns=[*"vuxwyz"]),
    ):
        (block,) = Inputs(description, MemoryRows({"a": given})).blocks(N)
        np.testing.assert_array_equal(block.arrays["a"], X)
        np.testing.assert_array_equal(block.batch.inputs["a"], expected.batch.inputs["a"])
    with pytest.raises(UserError, match="table 'a' has no column 'w'; allowed: all columns of training, in any order"):
        Inputs(description, MemoryRows({"a": Frame(X, columns=[*"uvqxy"])}))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_memory_is_bounded_by_the_array(dtype, tmp_path):
    array = (255 * RNG.random((5000, 25, 40))).astype(dtype)
    np.savez(tmp_path / "my.npz", a=array)
    config = tiny.config().data
    config.update({"path": tmp_path / "my.npz", "kinds": "" if dtype == np.uint8 else "a=vector"})
    size = array.nbytes
    del array
    tracemalloc.start()
    try:
        own_data.load(config)
        assert tracemalloc.get_traced_memory()[1] < 2.2 * size + 30e6  # blocks, whatever the size
    finally:
        tracemalloc.stop()
