"""Arrays that no model can learn from or be used on: one line that names the array and what is allowed."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from mmvm_jax.config import own_data
from mmvm_jax.data.description import describe
from mmvm_jax.data.inputs import Inputs
from mmvm_jax.data.own_data import from_arrays, load
from mmvm_jax.data.rows import MemoryRows, NpzRows
from mmvm_jax.errors import UserError

N = 20
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(N, 3))
FUZZ = settings(derandomize=True, database=None, deadline=None, max_examples=150)
RECORDS = np.zeros(N, [("x", "f4")])


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert caught.value.exit_code == 2 and str(caught.value).isprintable()
    return str(caught.value)


def load_arrays(arrays, **fields):
    config = own_data().data
    config.update(fields)
    return from_arrays(arrays, config)


NO_NUMBERS = {
    "complex": np.ones((N, 3), complex),
    "datetime": np.zeros((N, 3), "M8[s]"),
    "timedelta": np.zeros((N, 3), "m8[s]"),
    "text": np.full((N, 3), "x"),
    "bytes": np.full((N, 3), b"x"),
    "records": np.zeros((N, 3), [("x", "f4")]),
    "void": np.zeros((N, 3), "V4"),
    "scalar per example": np.zeros(N),
    "nothing per example": np.zeros((N, 0)),
    "no pixels": np.zeros((N, 0, 5)),
    "scalar": np.array(3.0),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_is_no_array_of_numbers(kind):
    array = NO_NUMBERS[kind]
    assert f"array 'a' is {array.dtype} {list(array.shape)}; allowed: numbers [N, ...]" in refused(
        load_arrays, {"a": array}
    )


NAMES = ["", " ", "\t", "a/b", "/a", "../a", "a\\b", "a\nb", "a\rb", "a\0b", "\x1b[31m", "a\u2028b", "\u202ea", 1, None]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_are_none(name):
    message = refused(load_arrays, {"b": VECTORS, name: VECTORS})
    assert message == f"an array has the name {name!r}; allowed: printable characters without slashes"


@pytest.mark.parametrize("name", ["joint", "mean", "all", "others", "others_b"])
def test_names_that_metrics_have(name):
    assert f"array '{name}' has a name that metrics give" in refused(load_arrays, {name: VECTORS})


@pytest.mark.parametrize("names", [("a", "a_b", "b_c", "c"), ("a", "b_to_c", "a_to_b", "c")])
def test_names_whose_pairs_metrics_cannot_tell_apart(names):
    pair = {"a_b": "a_b_c", "b_to_c": "a_to_b_to_c"}[names[1]]
    assert f"of the arrays {list(names)} metrics call 2 things '{pair}'" in refused(
        load_arrays, dict.fromkeys(names, VECTORS)
    )
    load_arrays(dict.fromkeys(names[:3], VECTORS))


def test_names_that_mean_two_modalities_or_what_is_made_of_one():
    assert "metrics call 2 things 'a_b'" in refused(load_arrays, dict.fromkeys(("a", "b", "a_b"), VECTORS))
    for end in ("__mean", "__log_variance", "__std", "__samples"):
        assert f"array 'a{end}' has the name of an output; allowed: no end in __mean," in refused(
            load_arrays, {"a": VECTORS, f"a{end}": VECTORS}
        )


@pytest.mark.parametrize("name", ["a b", "$x^2$", "é", "日本", "<b>", "a=b", "."])
def test_other_names_are_allowed(name):
    assert load_arrays({name: VECTORS}).modalities[0].name == name


def with_value(value, dtype=None):
    array = VECTORS.astype(dtype or np.float64)
    array[7, 1] = value
    return array


LARGE = {
    "infinity": (with_value(np.inf), "infinity in 1 examples, the first is 7"),
    "minus infinity": (with_value(-np.inf, np.float16), "infinity in 1 examples, the first is 7"),
    "beyond float32": (with_value(1e300), r"numbers beyond 1e\+38 in 1 examples, the first is 7"),
    "difference beyond float32": (with_value(-3e38), r"numbers beyond 1e\+38 in 1 examples, the first is 7"),
    "count beyond int32": (np.full((N, 3), 3 * 10**9), "'a' has the kind counts .* 3000000000; allowed: .* 2147483647"),
    "count beyond int64": (np.full((N, 3), 2**63, np.uint64), "counts .* 9223372036854775808"),
    "token": (np.tile([10**9, 5, 0, 0, 0], (N, 1)), "'a' has the kind tokens .* 1000000000; allowed: .* 999999"),
    "pixel": (np.full((N, 3, 3), 300, np.uint16), "integer image with values from 300 to 300"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_numbers_that_are_none_or_too_large(kind):
    array, message = LARGE[kind]
    with pytest.raises(UserError, match=message):
        load_arrays({"a": array}, kinds="a=counts" if kind.startswith("count") else "")


MASKS = {
    "of another length": np.ones(N - 1),
    "two axes": np.ones((N, 1)),
    "a scalar": np.array(1),
    "shares": np.full(N, 0.5),
    "NaN": np.full(N, np.nan),
    "minus one": np.full(N, -1),
    "complex": np.ones(N, complex),
    "text": np.full(N, "1"),
    "objects": np.full(N, None, object),
    "dates": np.zeros(N, "M8[s]"),
    "records": RECORDS,
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_that_are_none(kind):
    assert "a__present" in refused(load_arrays, {"a": VECTORS, "a__present": MASKS[kind]})


def test_all_absent():
    nothing = {"a": VECTORS, "b": VECTORS, "a__present": np.zeros(N), "b__present": np.zeros(N)}
    assert refused(load_arrays, nothing) == "the training split is empty; allowed: one example or more in each split"
    assert "'b' is present in no training example" in refused(load_arrays, nothing | {"a__present": np.ones(N)})


LABELS = {
    "more classes than examples": np.arange(N) + 1,
    "different numbers": 2**40 + np.arange(N),
    "different names": np.arange(N).astype(str),
    "negative": np.full(N, -1),
    "real": np.linspace(0, 1, N),
    "infinite": np.full(N, np.inf),
    "NaN": np.full(N, np.nan),
    "empty text": np.full(N, ""),
    "dates": np.zeros(N, "M8[s]"),
    "objects": np.full(N, None, object),
    "records": RECORDS,
    "no columns": np.zeros((N, 0), int),
    "three axes": np.zeros((N, 2, 2), int),
    "columns of classes": np.full((N, 2), 2),
    "a scalar": np.array(3),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_none(kind):
    message = refused(load_arrays, {"a": VECTORS, "labels": LABELS[kind]})
    assert "labels" in message and "allowed: " in message


SPLITS = {
    "a third one": np.arange(N) % 3,
    "validation": np.full(N, "validation"),
    "bytes": np.full(N, b"training"),
    "NaN": np.full(N, np.nan),
    "dates": np.zeros(N, "M8[s]"),
    "lists": np.fromiter(([0] for _ in range(N)), object),
    "records": RECORDS,
    "two axes": np.zeros((N, 2)),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_splits_that_are_none(kind):
    assert "array 'split' is " in refused(load_arrays, {"a": VECTORS, "split": SPLITS[kind]})


@pytest.mark.parametrize("length", [0, 1, 2])
def test_too_few_examples(length):
    message = refused(load_arrays, {"a": np.zeros((length, 3))})
    assert message.startswith("the arrays have no examples: a;" if length == 0 else "the test split is empty;")


@pytest.mark.parametrize("values", [[[1], [1, 2]], [[1.0, 2.0], "x"], [VECTORS, VECTORS[:3]]], ids=["1", "2", "3"])
def test_ragged_lists(values):
    assert refused(MemoryRows, {"a": values}).startswith("'a' is not an array (")


@pytest.mark.parametrize("dtype", [">f8", "<f4", "f2", ">i4", "u1", "?", "f8"])
def test_every_type_of_number_is_read_as_its_values(dtype, tmp_path):
    """Byte order and the order of the axes in memory make no difference."""
    white = 255 if np.dtype(dtype).kind in "iu" else 1
    values = (white * RNG.integers(0, 2, (N, 3, 4))).astype(dtype)
    np.savez(tmp_path / "my.npz", a=np.asfortranarray(values))
    config = own_data().data
    config.update({"path": str(tmp_path / "my.npz"), "kinds": "a=image"})
    dataset = load(config)
    split = np.concatenate([dataset.train.inputs["a"], dataset.test.inputs["a"]])
    assert split.dtype in (np.uint8, np.float32)
    assert split.sum() == values.astype(float).sum()


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-6, 1.0, 1e6, 1e37])
def test_units_are_finite_whatever_the_scale(scale):
    dataset = load_arrays({"a": np.clip(VECTORS, -2, 2) * scale, "b": np.full((N, 2), 0.1 * scale)})
    for split in (dataset.train, dataset.test):
        assert all(np.isfinite(values).all() and np.abs(values).max() < 10 for values in split.inputs.values())


# An .npz file as a whole.


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def encrypted(content: bytes) -> bytes:
    """The flag that says so is set in both heads of the first member."""
    content = bytearray(content)
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def head(text: str) -> bytes:
    """An .npy file of this head, and no values."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


GOOD = npz(a=VECTORS, labels=np.arange(N) % 2)
FILES = {
    "empty": b"",
    "text": b"a,b,c\n1,2,3\n",
    "pickle": b"\x80\x04K\x01.",
    "half": GOOD[: len(GOOD) // 2],
    "without its end": GOOD[:-30],
    "no arrays": archive({}),
    "a text inside": archive({"readme.txt": b"hello"}),
    "an empty array file": archive({"a.npy": b""}),
    "a cut head": archive({"a.npy": b"\x93NUMPY\x01\x00\xff"}),
    "a later version": archive({"a.npy": b"\x93NUMPY\x09\x00" + b"{}"}),
    "a head that is code": archive({"a.npy": head("__import__('os').getcwd()\n")}),
    "a head of another type": archive({"a.npy": head("[1, 2]\n")}),
    "a negative shape": archive({"a.npy": head("{'descr': '<f8', 'fortran_order': False, 'shape': (-5, 3)}\n")}),
    "a shape of text": archive({"a.npy": head("{'descr': '<f8', 'fortran_order': False, 'shape': ('x', 3)}\n")}),
    "an unknown type": archive({"a.npy": head("{'descr': '<q9', 'fortran_order': False, 'shape': (5, 3)}\n")}),
    "fewer values": archive({"a.npy": head("{'descr': '<f8', 'fortran_order': False, 'shape': (5, 3)}\n") + b"x" * 8}),
    "a huge shape": archive({"a.npy": head("{'descr': '<f8', 'fortran_order': False, 'shape': (2**60, 3)}\n")}),
    "a shape beyond memory": archive(
        {"a.npy": head("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976, 3)}\n")}
    ),
    "encrypted": encrypted(GOOD),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_arrays(kind, tmp_path):
    path = tmp_path / "my.npz"
    path.write_bytes(FILES[kind])
    config = own_data().data
    config.path = str(path)
    message = refused(load, config)
    assert "my.npz" in message or message.startswith("the data hold no modality")


def test_a_negative_shape_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "my.npz").write_bytes(FILES["a negative shape"])
    assert "its 'a.npy' has the shape [-5, 3]" in refused(NpzRows, str(tmp_path / "my.npz"), "--input")


@pytest.mark.parametrize("path", ["", "nowhere.npz", "."])
def test_files_that_are_not_there(path):
    assert refused(NpzRows, path, "--input").startswith(f"--input is '{path}': no such file; allowed: ")


@FUZZ
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    content = bytearray(GOOD)
    for place in data.draw(st.lists(st.integers(0, len(GOOD) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 9, 40]))]))
    try:
        rows = NpzRows(str(path), "--input")
        for name in rows.headers:
            list(rows.blocks([name], 7, N))
    except UserError as error:
        assert str(error).isprintable()
    except StopIteration:  # an array of another length, which is refused before blocks are read
        assert any(header.shape[:1] != (N,) for header in rows.headers.values())


TYPES = arrays_of.scalar_dtypes() | arrays_of.byte_string_dtypes() | arrays_of.unicode_string_dtypes()
NUMBERS = arrays_of.integer_dtypes() | arrays_of.unsigned_integer_dtypes() | arrays_of.floating_dtypes()
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(lambda rest: (5, *rest))  # so that more than lengths is looked at
ANY = (
    arrays_of.arrays(TYPES, SHAPES | arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0))
    | arrays_of.arrays(NUMBERS, SHAPES)
    | arrays_of.arrays(NUMBERS, SHAPES, elements=st.integers(0, 1))
    | arrays_of.arrays(np.float16, SHAPES, elements=st.floats(0, 1, width=16))
)
WHERE = st.sampled_from(["a", "b", "labels", "split", "a__present", "b__present", "joint", "c/d"])


@FUZZ
@given(st.dictionaries(WHERE, ANY, max_size=3))
def test_any_arrays_are_a_data_set_or_refused(arrays):
    try:
        dataset = load_arrays(arrays)
    except UserError as error:
        assert str(error).isprintable()
        return
    for split in (dataset.train, dataset.test):
        assert split.present.any(axis=0).all()
        for modality, row in zip(dataset.modalities, split.present, strict=True):
            assert np.isfinite(split.inputs[modality.name][row]).all()


TRAINED = describe(load_arrays({"a": VECTORS, "b": np.tile([3, 0, 0], (N, 1)), "c": RNG.random((N, 4, 4))}))


@FUZZ
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "a__present", "labels"]), ANY, max_size=3))
def test_any_arrays_are_inputs_or_refused(arrays):
    try:
        for block in Inputs(TRAINED, MemoryRows(arrays)).blocks(3):
            assert all(np.isfinite(values).all() for values in block.batch.inputs.values())
    except UserError as error:
        assert str(error).isprintable()
