"""Raw files as people pass them on: archives in archives, names and tables rewritten, other things in their place."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from mmvm_jax.data import mnist, raw, tables
from mmvm_jax.errors import UserError

ORIGIN = raw.Origin("birds.zip", "Birds of Somewhere", "CC0")


@pytest.fixture
def put(tmp_path, manual):
    """A function (**files) -> the files, these among them."""

    def write(contents: dict[str, bytes]):
        for name, content in contents.items():
            path = manual("birds") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return raw.RawFiles("birds", tmp_path, ORIGIN)

    return write


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


BIRDS = {"birds/one.txt": b"1", "birds/two.txt": b"2"}
ARCHIVES = {
    "zip in a zip": ("all.zip", zipped({"a/birds.zip": zipped(BIRDS)})),
    "tar in a zip": ("all.zip", zipped({"birds.tar": tarred(BIRDS)})),
    "tar.gz in a zip": ("all.zip", zipped({"birds.tgz": gzip.compress(tarred(BIRDS))})),
    "zip in a tar": ("all.tar.gz", gzip.compress(tarred({"./a/birds.zip": zipped(BIRDS)}))),
    "two inside": ("all.zip", zipped({"b.zip": zipped({"c.zip": zipped(BIRDS)})})),
    "bz2": ("birds.tar.bz2", bz2.compress(tarred(BIRDS))),
    "xz": ("birds.txz", lzma.compress(tarred(BIRDS))),
    "a .tgz that a browser has decompressed": ("birds.tgz", tarred(BIRDS)),
    "a zip under another name": ("birds.tar.gz", zipped(BIRDS)),
    "the second download": ("birds (1).zip", zipped(BIRDS)),
    "backslashes": ("birds.zip", zipped({"birds\\one.txt": b"1", "birds\\two.txt": b"2", "birds\\": b""})),
    "folders around": ("birds.zip", zipped({f"data/raw/{name}": content for name, content in BIRDS.items()})),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives(kind, put):
    files = put(dict([ARCHIVES[kind]]))
    assert [files.read(files.find(name)) for name in BIRDS] == [b"1", b"2"]


def test_names_that_are_not_unicode(put):
    """As some programs on Windows write them: in the code page 437."""
    files = put({"birds.zip": zipped({"Vxgel/birds/one.txt": b"1"}).replace(b"Vxgel", b"V\x94gel")})
    assert files.read(files.find("birds/one.txt")) == b"1"


@pytest.mark.parametrize(
    "name", ["some-images.idx3-ubyte", "some_images_idx3_ubyte", "Some-Images-idx3-ubyte", "some-images-idx3-ubyte (2)"]
)
def test_names_are_found_however_their_words_are_separated(name, put):
    assert put({f"a/{name}": b"1"}).find("some-images-idx3-ubyte") == f"a/{name}"


def test_the_exact_name_comes_first(put):
    files = put({"a/one.two.txt": b"", "a/one-two.txt": b"", "b/One.two.txt": b""})
    assert files.find("one-two.txt") == "a/one-two.txt" and files.find("One.two.txt") == "b/One.two.txt"


def test_all_that_is_missing_is_counted_before_anything_is_read(put):
    files = put({f"{number}.txt": b"" for number in range(10)})
    with pytest.raises(UserError, match=r"birds: 5 of 15 files, such as 10.txt, 11.txt, 12.txt, are missing.\n"):
        files.find_all(f"{number}.txt" for number in range(15))
    assert files.find_all(["3.txt"]) == {"3.txt": "3.txt"}


def test_what_is_there_is_named(put):
    with pytest.raises(UserError, match="where there is no file"):
        put({}).find("one.txt")
    with pytest.raises(UserError, match=r"there are 2 files, such as a.rar; a.rar must be unpacked by hand"):
        put({"a.rar": b"Rar!", "b.txt": b""}).find("one.txt")


IN_PLACE = {
    "empty": (b"", "it is empty; fetch it again"),
    "a web page": (b"\n<!DOCTYPE html><html>Quota exceeded</html>", r"a web page \(HTML\), .* with a browser"),
    "a message": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a message in XML"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS .*: git lfs pull"),
    "zeros": (bytes(5000), "it begins with zeros, like an interrupted download"),
}
READERS = {
    "one.zip": None,
    "one.tar": None,
    "one.tar.gz": None,
    "one.npy": "array",
    "one.npz": "arrays",
    "one.txt": "text",
    "one.csv": "text",
    "one.jpg": "image",
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", IN_PLACE)
def test_other_things_in_place_of_a_file(name, kind, put):
    content, message = IN_PLACE[kind]
    with pytest.raises(UserError, match=rf"birds/{name} cannot be read: {message}|birds/{name} .*{message}") as error:
        files = put({name: content})
        getattr(files, READERS[name])(name, *["L"] * (name == "one.jpg"))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("inner", ["birds.zip", "birds.tar", "birds.tgz"])
def test_a_damaged_archive_in_another_is_named(inner, put):
    with pytest.raises(UserError, match=rf"all.zip/a/{inner} cannot be read: .*; fetch it again"):
        put({"all.zip": zipped({f"a/{inner}": b"not an archive" * 100})})


def test_an_archive_cut_off_says_so(put):
    with pytest.raises(UserError, match="its end is missing, as in an interrupted download; fetch it again"):
        put({"birds.zip": zipped(BIRDS)[:-30]})


# Tables.

TABLE = [["name", "a", "b"], ["x.jpg", "1", "0"], ["y.jpg", "0", "1"]]


def written(separator=",", end="\n", before="", after="", encoding="utf-8") -> bytes:
    return (before + "".join(separator.join(row) + after + end for row in TABLE)).encode(encoding)


TABLES = {
    "commas": written(),
    "spaces": written("  "),
    "tabs": written("\t"),
    "semicolons": written(";"),
    "spaces after commas": written(", "),
    "CRLF": written(end="\r\n"),
    "a byte order mark": written(before="\ufeff", end="\r\n"),
    "UTF-16": written("\t", encoding="utf-16"),
    "trailing commas": written(after=",,"),
    "trailing spaces": written(" ", after="  "),
    "blank lines": written(end="\n\n", before="\n"),
    "quotes": "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in TABLE).encode(),
    "compressed": gzip.compress(written()),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables(kind, put):
    files = put({"t.csv": TABLES[kind]})
    assert [row for _, row in tables.rows(files, "t.csv")] == TABLE
    read = [row for _, row in tables.records(files, "t.csv", ("b", "name"))]
    assert read == [dict(zip(TABLE[0], row, strict=True)) for row in TABLE[1:]]


def test_tables_of_wrong_columns(put):
    files = put({"t.csv": b"a,b\n1\n1,2,3\n"})
    with pytest.raises(UserError, match="t.csv cannot be read: it has no column c"):
        list(tables.records(files, "t.csv", ["c"]))
    with pytest.raises(UserError, match="t.csv cannot be read: line 3 has 3 values; expected 2"):
        list(tables.records(files, "t.csv", ["a"]))


def test_flags(put):
    files = put({"t.csv": b"1"})
    yes, no = ("1", "1.0", "+1", "true", "True", "yes", "1e0"), ("0", "-1", "-1.0", "0.0", "", "FALSE", "no")
    assert all(tables.flag(files, "t.csv", 1, value) for value in yes)
    assert not any(tables.flag(files, "t.csv", 1, value) for value in no)
    for value in ("2", "x", "nan", "1 1", "0.5"):
        with pytest.raises(UserError, match=rf"t.csv cannot be read: line 7 has '{value}'; expected 1 or 0"):
            tables.flag(files, "t.csv", 7, value)


# MNIST.


def keras(**changes) -> bytes:
    rng, stream = np.random.default_rng(0), io.BytesIO()
    arrays = {f"x_{split}": rng.integers(0, 256, (20, 28, 28), np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(20, dtype=np.uint8) % 10 for split in ("train", "test")}
    np.savez(stream, **{name: array for name, array in {**arrays, **changes}.items() if array is not None})
    return stream.getvalue()


def test_mnist_as_keras_ships_it(put):
    files = put({"keras/mnist.npz": keras()})
    for split in ("train", "test"):
        images, labels = mnist.read_mnist(files, split)
        assert images.shape == (20, 28, 28) and images.dtype == np.uint8 and labels.dtype == np.int32
        np.testing.assert_array_equal(labels, np.arange(20) % 10)
    assert not np.array_equal(images, mnist.read_mnist(files, "train")[0])


@pytest.mark.parametrize(
    "changes", [{"x_test": None}, {"y_test": np.zeros(3, np.uint8)}, {"x_test": np.zeros((20, 784), np.uint8)}]
)
def test_a_file_of_keras_that_is_none(changes, put):
    with pytest.raises(UserError, match="mnist.npz cannot be read"):
        mnist.read_mnist(put({"mnist.npz": keras(**changes)}), "test")


def test_without_mnist_its_files_are_named(put):
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is missing"):
        mnist.read_mnist(put({}), "train")
