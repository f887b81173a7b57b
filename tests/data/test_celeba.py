"""CelebA: faces, attributes and partition in both published layouts."""

import numpy as np
import pytest
from PIL import Image

from mmvm_jax.data import celeba, on_disk, raw, text
from mmvm_jax.errors import UserError

ATTRIBUTES = [
    "5_o_Clock_Shadow",
    "Bald",
    "Smiling",
    *(f"Attribute_{number}_of_the_Face" for number in range(37)),
]
FILES = [f"{number:06d}.jpg" for number in (1, 2, 3, 10, 11, 12, 21, 30, 202599)]
PARTITION = dict(zip(FILES, (0, 0, 2, 1, 0, 2, 0, 0, 1), strict=True))
PRESENT = {name: {row % 3, row} for row, name in enumerate(FILES)} | {
    FILES[4]: set(),
    FILES[7]: set(range(40)),
}


def attribute_values(name: str) -> list[str]:
    return ["1" if row in PRESENT[name] else "-1" for row in range(40)]


@pytest.fixture(params=["txt", "csv"])
def raw_files(request, manual):
    folder, rows = manual("celeba"), list(reversed(FILES))  # order is to come from the names
    (folder / "img_align_celeba").mkdir()
    for number, name in enumerate(FILES):
        picture = np.zeros((218, 178, 3), np.uint8)
        picture[35:183, 15:163] = (20 * number, 100, 50)  # the centre crop
        Image.fromarray(picture).save(folder / "img_align_celeba" / name, quality=100, subsampling=0)
    if request.param == "csv":
        lines = [",".join(["image_id", *ATTRIBUTES]), *(",".join([n, *attribute_values(n)]) for n in rows)]
        partition = ["image_id,partition", *(f"{name},{PARTITION[name]}" for name in rows)]
    else:
        lines = [str(len(FILES)), " ".join(ATTRIBUTES) + " "]
        lines += [f"{name} " + " ".join(f"{value:>2}" for value in attribute_values(name)) for name in rows]
        partition = [f"{name} {PARTITION[name]}" for name in rows]
    (folder / f"list_attr_celeba.{request.param}").write_text("\n".join(lines) + "\n")
    (folder / f"list_eval_partition.{request.param}").write_text("\n".join(partition) + "\n")
    return folder


def read(ids) -> str:
    return "".join(text.ALPHABET[number] for number in ids)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("memory_gb", [8.0, 0.0])
def test_examples(memory_gb, packed, raw_files, load, pack, monkeypatch):
    monkeypatch.setattr(on_disk, "PART_SIZE", 30_000)  # two faces: parts of both splits, the last ones short
    if packed:
        pack(raw_files / "img_align_celeba", "img_align_celeba.zip")
    dataset = load("celeba", memory_gb=memory_gb)
    assert [(m.name, m.shape) for m in dataset.modalities] == [("image", (64, 64, 3)), ("text", (256,))]
    assert dataset.modalities[1].weight == 16 and dataset.modalities[1].vocabulary_size == 41
    assert dataset.class_names == tuple(ATTRIBUTES) and dataset.label_kind == "multilabel"
    for split, number in ((dataset.train, 0), (dataset.test, 2)):
        members = [name for name in FILES if PARTITION[name] == number]
        assert split.labels.shape == (len(members), 40) and split.inputs["text"][:].dtype == np.int32
        for row, name in enumerate(members):
            assert set(np.flatnonzero(split.labels[row])) == PRESENT[name]
            colour = np.array((20 * FILES.index(name), 100, 50))
            assert np.abs(split.inputs["image"][row].astype(int) - colour).max() <= 4  # no black border


def test_text(raw_files, load):
    dataset = load("celeba", ("text",))
    members = [name for name in FILES if PARTITION[name] == 0]
    for ids, name in zip(dataset.train.inputs["text"], members, strict=True):
        present = [ATTRIBUTES[row].replace("_", " ").lower() for row in sorted(PRESENT[name])]
        line = ", ".join(present)
        assert read(ids).strip("*") == line[:256]
    assert read(dataset.train.inputs["text"][2]) == "*" * 256  # no attribute
    assert dataset.vocabularies == {"text": tuple(text.ALPHABET)}


def test_the_start_of_a_text_varies_over_all_positions():
    rng = np.random.default_rng(0)
    has = np.eye(40, dtype=np.uint8)[1]
    starts = [read(celeba.write_text(ATTRIBUTES, has, rng)).index("bald") for _ in range(5000)]
    assert set(starts) == set(range(253))


@pytest.mark.parametrize("name", ["img_align_celeba/000003.jpg", "list_attr_celeba", "list_eval_partition"])
def test_missing_files(name, raw_files, load):
    next(raw_files.glob(f"{name}*")).unlink()
    with pytest.raises(UserError, match=f"celeba: {name}.* is missing"):
        load("celeba")


def test_damaged_attributes(raw_files, load):
    path = next(raw_files.glob("list_attr*"))
    path.write_text(path.read_text().rstrip()[:-3] + "\n")
    with pytest.raises(UserError, match="the row of 000001.jpg has 39 values; expected 40"):
        load("celeba")


REWRITTEN = {
    "real numbers": lambda line: line.replace(",1", ",1.0").replace(",-1", ",-1.0"),
    "spaces after commas": lambda line: line.replace(",", ", "),
    "trailing commas": lambda line: line + ",",
    "semicolons": lambda line: line.replace(",", ";"),
    "CRLF": lambda line: line + "\r",
    "an index": lambda line: f"7,{line}" if line.startswith("0") or line.startswith("2") else f",{line}",
    "folders": lambda line: f"img_align_celeba/{line}" if line.startswith(("0", "2")) else line,
}


@pytest.mark.parametrize("raw_files", ["csv"], indirect=True)
@pytest.mark.parametrize("kind", REWRITTEN)
def test_tables_as_others_write_them(kind, raw_files, files):
    for path in raw_files.glob("*.csv"):
        path.write_text("\n".join(map(REWRITTEN[kind], path.read_text().splitlines())) + "\n", newline="")
    names, attributes = celeba.read_attributes(files())
    assert names == ATTRIBUTES and {name: set(np.flatnonzero(row)) for name, row in attributes.items()} == PRESENT
    assert celeba.read_partition(files()) == {
        split: [name for name in FILES if PARTITION[name] == number] for split, number in (("train", 0), ("test", 2))
    }


@pytest.mark.parametrize("raw_files", ["csv"], indirect=True)
@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("list_attr_celeba", ",1", ",yess", r"list_attr_celeba.csv cannot be read: line \d+ has 'yess'; expected 1"),
        ("list_eval_partition", ",0", ",3", r"list_eval_partition.csv cannot be read: line \d+ is '.*jpg 3'; expected"),
    ],
)
def test_cells_that_say_nothing(table, old, new, message, raw_files, load):
    path = raw_files / f"{table}.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load("celeba")


@pytest.fixture
def files(tmp_path):
    return lambda: raw.RawFiles("celeba", tmp_path, celeba.ORIGIN)


@pytest.mark.parametrize("raw_files", ["txt"], indirect=True)
def test_pictures_in_other_places(raw_files, files, manual):
    (raw_files / "img_celeba").mkdir()
    for place, name in enumerate(FILES):
        path = raw_files / "img_align_celeba" / name
        path.rename((raw_files if place % 2 else raw_files / "img_align_celeba") / name)
        (raw_files / "img_celeba" / name).write_bytes(b"not aligned")
    Image.open(raw_files / FILES[1]).save(raw_files / FILES[1].replace("jpg", "png"))
    (raw_files / FILES[1]).unlink()
    found = celeba.find_pictures(files(), FILES)
    assert list(found.values())[:3] == [f"img_align_celeba/{FILES[0]}", "000002.png", f"img_align_celeba/{FILES[2]}"]


def test_what_is_missing_is_said_before_a_picture_is_decoded(raw_files, load, monkeypatch):
    for name in FILES[2], FILES[5]:  # of the last split
        (raw_files / "img_align_celeba" / name).unlink()
    monkeypatch.setattr(celeba, "read_picture", None)
    with pytest.raises(
        UserError, match="celeba: 2 of 7 files, such as img_align_celeba/000003.jpg, .*000012.jpg, are missing"
    ):
        load("celeba")


@pytest.mark.parametrize("size", [(178, 218), (89, 109), (45, 55), (534, 654), (60, 60), (178, 100)])
def test_the_crop_scales_with_the_picture(size, raw_files, files):
    Image.new("RGB", size, (200, 100, 50)).save(raw_files / "one.png")
    picture = celeba.read_picture(files(), "one.png")
    assert picture.shape == (64, 64, 3) and np.abs(picture.astype(int) - [200, 100, 50]).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("raw_files", ["csv"], indirect=True)
def test_the_whole_path(raw_files, quicktest):
    values = quicktest("celeba")
    assert {f"reconstruction/log_likelihood/{name}" for name in ("image", "text")} <= set(values)
