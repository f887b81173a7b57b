"""Raw files: found wherever they are packed, refused where unsafe or damaged."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from mmvm_jax.data import mnist, raw
from mmvm_jax.errors import UserError

ORIGIN = raw.Origin("birds.zip", "Birds of Somewhere, doi 10.0/1", "CC0")


@pytest.fixture
def files(tmp_path, manual):
    """A function that lists the files put so far."""
    manual("birds")
    return lambda: raw.RawFiles("birds", tmp_path, ORIGIN)


@pytest.mark.parametrize("archive", ["", "birds.zip", "birds.tar", "birds.tar.gz", "birds.tgz"])
def test_reads_folders_and_archives_alike(archive, files, manual, pack):
    folder = manual("birds") / "Birds"
    (folder / "2").mkdir(parents=True)
    for number in range(12):
        (folder / "2" / f"{number}.txt").write_text(f"bird {number}")
    if archive:
        pack(folder, archive)
    found = files()
    assert [path for path in found.paths if path.endswith(".txt")] == [f"Birds/2/{n}.txt" for n in range(12)]
    for number in (11, 3, 7):
        assert found.text(found.find(f"2/{number}.txt")) == f"bird {number}"
    assert found.find_optional("3/1.txt") is None and found.find_optional("rds/2/1.txt") is None


def test_the_unpacked_file_counts_and_clutter_does_not(files, manual):
    with zipfile.ZipFile(manual("birds") / "a.zip", "w") as archive:
        archive.writestr("Birds/one.txt", "packed")
        archive.writestr("__MACOSX/note.txt", "clutter")
        archive.writestr("__MACOSX/Birds/._one.txt", "clutter")
    (manual("birds") / "Birds").mkdir()
    (manual("birds") / "Birds" / "one.txt").write_text("unpacked")
    with zipfile.ZipFile(manual("birds") / "Birds" / "z.zip", "w") as archive:
        archive.writestr("one.txt", "packed")
    assert files().paths == ["Birds/one.txt"]
    assert files().text("Birds/one.txt") == "unpacked"


def test_missing_file_ends_in_five_lines(files, manual):
    with pytest.raises(UserError) as error:
        files().find("Birds/one.txt", "one.csv")
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    for line, part in zip(
        lines, ("birds: Birds/one.txt", str(manual("birds")), ORIGIN.source, "CC0", "birds.zip"), strict=True
    ):
        assert part in line


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "Birds/../../outside.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_out_are_refused(kind, name, files, manual):
    path = manual("birds") / f"birds.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(UserError, match=rf"birds.{kind} holds '{name}', a path that leads out of it"):
        files()


@pytest.mark.parametrize("name", ["birds.zip", "birds.tar", "birds.tar.gz"])
def test_damaged_archive(name, files, manual):
    (manual("birds") / name).write_bytes(b"not an archive" * 100)
    with pytest.raises(UserError, match=rf"{name} cannot be read: .*; fetch it again"):
        files()


def test_damaged_member(files, manual):
    path = manual("birds") / "birds.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.txt", "A" * 100)
    path.write_bytes(path.read_bytes().replace(b"A" * 100, b"B" * 100))
    found = files()
    with pytest.raises(UserError, match="one.txt cannot be read: Bad CRC"):
        found.read("one.txt")


def test_damaged_picture_and_pickle(files, manual):
    content = io.BytesIO()
    Image.new("L", (64, 64)).save(content, "JPEG")
    (manual("birds") / "one.jpg").write_bytes(content.getvalue()[:200])
    np.save(manual("birds") / "one.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="one.jpg cannot be read"):
        files().image("one.jpg", "L")
    with pytest.raises(UserError, match="one.npy cannot be read: Object arrays"):
        files().array("one.npy")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx(ending, files, manual):
    content = b"\0\0\x08\x03" + struct.pack(">III", 2, 3, 4) + bytes(range(24))
    write = gzip.compress if ending else bytes
    (manual("birds") / f"some-idx3-ubyte{ending}").write_bytes(write(content))
    np.testing.assert_array_equal(
        mnist.read_idx(files(), "some-idx3-ubyte"), np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    )
    for broken in (content[:-1], b"\0\0\x0d\x03" + content[4:], b""):
        (manual("birds") / f"some-idx3-ubyte{ending}").write_bytes(write(broken))
        with pytest.raises(UserError, match=f"some-idx3-ubyte{ending} cannot be read"):
            mnist.read_idx(files(), "some-idx3-ubyte")


def test_parallel_keeps_the_order_and_stays_near():
    items = iter(range(10_000))
    results = raw.parallel(lambda item: item**2, items)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert next(items) < 9999
    assert len(list(results)) == 10_000 - 3 - 1


def test_parallel_names_all_that_cannot_be_used():
    tried = []

    def refuse(item):
        tried.append(item)
        if item % 100 == 50:
            raise UserError(f"{item}.jpg cannot be read")
        return item

    results = raw.parallel(refuse, range(1000))
    assert [next(results) for _ in range(50)] == list(range(50))
    with pytest.raises(UserError, match="10 files cannot be used, such as: 50.jpg cannot be read; 150.jpg .*; 250.jpg"):
        next(results)
    assert sorted(tried) == list(range(1000))


def test_parallel_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(raw.parallel(lambda item: 1 / item, [2, 1, 0, 1]))


def test_natural_key():
    names = ["m/10.2.png", "m/9.2.png", "m/10.png", "a/100", "m/9"]
    assert sorted(names, key=raw.natural_key) == ["a/100", "m/9", "m/9.2.png", "m/10.2.png", "m/10.png"]
