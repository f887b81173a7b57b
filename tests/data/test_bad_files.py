"""Raw files that are damaged, locked or made to do harm: one line that names the file, and nothing happens."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmvm_jax.data import cub, raw
from mmvm_jax.errors import UserError

ORIGIN = raw.Origin("birds.zip", "Birds of Somewhere", "CC0")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
FUZZ = settings(derandomize=True, database=None, deadline=None, max_examples=100)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it reads nevertheless


@pytest.fixture
def put(tmp_path, manual):
    """A function (name, content) -> the files, that one among them."""

    def write(name: str, content: bytes):
        (manual("birds") / name).write_bytes(content)
        return raw.RawFiles("birds", tmp_path, ORIGIN)

    return write


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable()
    return str(caught.value)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def zipped(members: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


# Pictures.

COLOUR = Image.fromarray(PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_picture_cut_off(kind, share, put):
    content = encoded(COLOUR, kind)
    files = put("one.img", content[: int(share * len(content))])
    assert "birds/one.img cannot be read: " in refused(files.image, "one.img", "RGB")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"<svg/>", b"%PDF-1.4"])
def test_what_is_no_picture(content, put):
    assert "birds/one.png cannot be read: " in refused(put("one.png", content).image, "one.png", "L")


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_a_pixel_are_not_cut_off(mode, put):
    picture = Image.fromarray(np.full((4, 4), 40_000).astype({"I;16": "u2", "I": "i4", "F": "f4"}[mode]))
    assert picture.mode == mode
    files = put("one.tif", encoded(picture, "TIFF"))
    assert "more than 8 bits per pixel; allowed: 8" in refused(files.image, "one.tif", "L")


@pytest.mark.parametrize("side", [10_000, 30_000, 65_000])
def test_a_picture_that_would_fill_the_memory(side, put):
    content = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    content[18:26] = side.to_bytes(4, "little") * 2  # the size that its head states
    assert "could be decompression bomb" in refused(put("one.bmp", bytes(content)).image, "one.bmp", "L")


def test_pictures_of_other_kinds_are_converted(put):
    cmyk = put("cmyk.jpg", encoded(COLOUR.convert("CMYK"), "JPEG")).image("cmyk.jpg", "RGB")
    np.testing.assert_allclose(np.asarray(cmyk, float).mean(), PIXELS.mean(), atol=3)
    frames = [Image.new("L", (5, 4), value) for value in (7, 200)]
    animated = put("two.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert np.unique(np.asarray(animated.image("two.gif", "L"))) == [7]  # the first
    transparent = put("rgba.png", encoded(COLOUR.convert("RGBA"), "PNG"))
    np.testing.assert_array_equal(np.asarray(transparent.image("rgba.png", "RGB")), PIXELS)


# Archives.


def test_an_encrypted_member(put):
    content = bytearray(zipped({"one.txt": b"A" * 100}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    files = put("birds.zip", bytes(content))
    assert "one.txt cannot be read: File 'one.txt' is encrypted, password required" in refused(files.read, "one.txt")


@pytest.mark.parametrize("method", [1, 6, 9, 97, 99])
def test_a_compression_that_python_lacks(method, put):
    content = bytearray(zipped({"one.txt": b"A" * 100}))
    content[8] = content[content.index(b"PK\x01\x02") + 10] = method
    assert "one.txt cannot be read: " in refused(put("birds.zip", bytes(content)).read, "one.txt")


def test_a_member_without_a_name(put):
    content = zipped({"a": b"x"}).replace(b"a", b"\0")
    assert "birds.zip cannot be read: " in refused(put, "birds.zip", content)


@pytest.mark.parametrize("name", ["birds.zip", "birds.tar", "birds.tar.gz", "birds.tgz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_an_archive_cut_off(name, share, put):
    text = bytes(PIXELS)  # does not compress
    mode = "w" if name.endswith("tar") else "w:gz"
    member = tarfile.TarInfo("one.txt")
    content = zipped({"one.txt": text}) if name.endswith("zip") else tarred((member, text * 10), mode=mode)
    cut = content[: int(share * (len(text) * 10 if name.endswith("tar") else len(content)))]
    assert f"{name} cannot be read: " in refused(put, name, cut)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../etc/passwd", "one.txt"])
def test_links_in_an_archive_are_not_followed(kind, target, put):
    files = put("birds.tar", tarred((tarfile.TarInfo("one.txt"), b"1"), link("two.txt", target, kind)))
    assert files.paths == ["one.txt"]
    with pytest.raises(UserError, match="birds: two.txt is missing"):
        files.find("two.txt")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_devices_in_an_archive_are_nothing(kind, put):
    assert put("birds.tar", tarred(link("two.txt", "", kind))).paths == []


def test_a_name_that_would_break_the_line_is_escaped(put):
    files = put("birds.zip", zipped({"one\n\x1b[31m.npy": b"x"}))
    assert r"birds/one\n\x1b[31m.npy cannot be read: " in refused(files.array, "one\n\x1b[31m.npy")
    assert r"holds '../\n', a path that leads out" in refused(put, "more.zip", zipped({"../\n": b"x"}))


# Arrays and tables.

ARRAYS = {
    "objects": np.array([{}], object),
    "text": np.array(["a"]),
    "complex": np.ones(3, complex),
    "dates": np.zeros(3, "M8[s]"),
    "records": np.zeros(3, [("x", "f4")]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_hold_no_numbers(kind, put):
    stream = io.BytesIO()
    np.save(stream, ARRAYS[kind], allow_pickle=True)
    assert "birds/one.npy cannot be read: " in refused(put("one.npy", stream.getvalue()).array, "one.npy")


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY", b"\x80\x04K\x01.", zipped({"a.npy": b""})])
def test_what_is_no_array(content, put):
    assert "birds/one.npy cannot be read: " in refused(put("one.npy", content).array, "one.npy")


@pytest.mark.parametrize("line", ["one 001.Albatross/a.jpg", "1 Albatross/a.jpg", "-1 001.A/a.jpg", "1", "1.5 001.A/a"])
def test_a_line_of_a_table_that_is_none(line, put):
    files = put("birds.zip", zipped({"CUB_200_2011/images.txt": line.encode()}))
    assert "images.txt cannot be read: " in refused(cub.read_images, files)


# Anything.


def damaged(content: bytes):
    """A strategy: the content with some bytes replaced, perhaps cut off."""
    places = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=6)

    def change(drawn):
        places, end = drawn
        changed = bytearray(content)
        for place, value in places:
            changed[place] = value
        return bytes(changed[:end])

    return st.tuples(places, st.integers(1, len(content)) | st.just(len(content))).map(change)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_a_damaged_picture_is_read_or_refused(kind, put):
    @FUZZ
    @given(damaged(encoded(COLOUR, kind)))
    def check(content):
        files = put("one.img", content)
        try:
            files.image("one.img", "RGB", (8, 8))
        except UserError as error:
            assert str(error).isprintable()

    check()


ARCHIVES = {
    "birds.zip": zipped({"a/one.txt": b"hello" * 99, "two.npy": b"x" * 50}),
    "birds.tar": tarred((tarfile.TarInfo("one.txt"), b"1" * 300), (tarfile.TarInfo("two.txt"), b"2" * 300)),
    "birds.tar.gz": tarred((tarfile.TarInfo("one.txt"), bytes(PIXELS)), mode="w:gz"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_read_or_refused(name, put):
    @FUZZ
    @given(damaged(ARCHIVES[name]))
    def check(content):
        try:
            files = put(name, content)
            for path in files.paths:
                files.read(path)
        except UserError as error:
            assert str(error).isprintable()

    check()
