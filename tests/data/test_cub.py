"""CUB: photographs, captions and attributes in the published layout, odd cases included."""

import shutil

import numpy as np
import pytest
from PIL import Image

from mmvm_jax.data import cub, cub_captions, raw, text
from mmvm_jax.errors import UserError

# Photographs in the order of their numbers, by class; the second number of a name has no fixed width.
CLASSES = ("001.Albatross", "002.Auklet", "151.Vireo", "200.Yellowthroat")
NUM_IMAGES = 3  # of each class
TRAINING = {1, 2, 4, 7, 8, 10}
LONG = "a " + "red " * 40 + "bird"


def caption(image: int, place: int) -> str:
    if (image, place) == (1, 0):
        return LONG
    if (image, place) == (1, 1):
        return 'This bird isn\'t white, "really".'
    rare = f"word{image}x{place}"  # occurs once
    test_only = "zebra " * 5 if image not in TRAINING else ""
    return f"this bird has a red head and {rare} {test_only}wings."


@pytest.fixture
def raw_files(manual):
    """Both publishers' folders; returns the photographs' names by number."""
    folder = manual("cub")
    root, captions = folder / "CUB_200_2011", folder / "cvpr2016_cub" / "text_c10"
    (root / "attributes").mkdir(parents=True)
    names = {}
    for row, (name, place) in enumerate((n, p) for n in CLASSES for p in range(NUM_IMAGES)):
        image = row + 1
        names[image] = f"{name}/{name[4:]}_{place}_{image * 7}"
        for parent in (root / "images" / name, captions / name):
            parent.mkdir(parents=True, exist_ok=True)
        size = (90 + image, 60)
        picture = Image.new("L", size, 8 * image) if image == 2 else Image.new("RGB", size, (8 * image, 0, 90))
        picture.save(root / "images" / f"{names[image]}.jpg", quality=100)
        lines = "".join(f"{caption(image, place)}\n" for place in range(10))
        (captions / f"{names[image]}.txt").write_bytes(lines.encode())
    (root / "images.txt").write_text("".join(f"{image} {name}.jpg\n" for image, name in names.items()))
    rows = (f"{image} {int(image in TRAINING)}\n" for image in names)
    (root / "train_test_split.txt").write_text("".join(rows))
    (root / "attributes" / "image_attribute_labels.txt").write_text("".join(attributes(names)))
    return names


def attributes(names):
    """Lines `image attribute present certainty seconds`; image 3 is brown and yellow, image 4 has none."""
    present = {image: {249 + image} for image in names} | {3: {250, 263}, 4: set()}
    for image in names:
        for attribute in range(1, 313):
            is_present = int(attribute in present[image] or attribute < 249)
            extra = " 0 5.2" if (image, attribute) in ((3, 250), (5, 10)) else ""  # as some published lines
            yield f"{image} {attribute} {is_present} 3{extra} 12.7\n"


def test_examples(raw_files, load):
    dataset = load("cub")
    assert [m.name for m in dataset.modalities] == ["image", "caption"]
    members = {True: sorted(TRAINING), False: sorted(set(raw_files) - TRAINING)}
    for split, is_training in ((dataset.train, True), (dataset.test, False)):
        assert split.inputs["image"].shape == (60, 64, 64, 3) and split.inputs["image"].dtype == np.uint8
        assert split.inputs["caption"].shape == (60, 32) and split.inputs["caption"].dtype == np.int32
        for row, image in enumerate(members[is_training]):
            colour = [8 * image] * 3 if image == 2 else [8 * image, 0, 90]
            pictures = split.inputs["image"][10 * row : 10 * row + 10].astype(int)
            assert np.abs(pictures - np.array(colour)).max() <= 3
    assert dataset.num_classes == 6 and dataset.label_kind == "multilabel"


def test_captions(raw_files, load):
    dataset = load("cub")
    vocabulary = dataset.vocabularies["caption"]
    modality = dataset.modalities[1]
    assert (modality.vocabulary_size, modality.padding, modality.weight) == (len(vocabulary), 1, 128)
    assert (modality.kind, modality.likelihood) == ("tokens", "categorical")
    first_words = ("<exc>", "<pad>", "<eos>", "a", "red", "bird", ".", "this", "has", "head", "and", "wings")
    assert vocabulary == first_words  # zebra is in test captions only, the others occur less than four times

    def words(ids):
        return " ".join(vocabulary[number] for number in ids)

    captions = dataset.train.inputs["caption"]
    assert words(captions[0]) == "a " + "red " * 30 + "<eos>"
    exceptions = " ".join(["<exc> bird", *["<exc>"] * 7, ". <eos>", *["<pad>"] * 21])
    assert words(captions[1]) == exceptions
    sentence = "this bird has a red head and <exc> {}wings . <eos> <pad>"
    assert words(captions[10]).startswith(sentence.format(""))
    assert words(dataset.test.inputs["caption"][0]).startswith(sentence.format("<exc> " * 5))


def test_colours(raw_files, load):
    dataset = load("cub")
    assert dataset.class_names == ("blue to red", "brown", "grey", "yellow", "black", "white")
    # Image k has attribute 249 + k: 250 251 | 3: 250 and 263, 4: none | 254 255 256 257 258 259 260 261.
    expected = {
        1: [1],
        2: [0],
        4: [],
        7: [3],
        8: [0],
        10: [3],
        3: [1, 3],
        5: [2],
        6: [3],
        9: [0],
        11: [4],
        12: [5],
    }
    for split, members in ((dataset.train, sorted(TRAINING)), (dataset.test, [3, 5, 6, 9, 11, 12])):
        for row, image in enumerate(members):
            for label in split.labels[10 * row : 10 * row + 10]:
                np.testing.assert_array_equal(np.flatnonzero(label), expected[image])


def test_class_disjoint(raw_files, load):
    dataset = load("cub", policy="class_disjoint")
    assert dataset.train.labels.shape == dataset.test.labels.shape == (60, 6)
    first = dataset.test.inputs["image"][0].astype(int)  # number 7 is the first of class 151
    assert np.abs(first - np.array([56, 0, 90])).max() <= 3


def test_archives_give_the_same(raw_files, load, manual, pack):
    for folder, archive in (("CUB_200_2011", "CUB_200_2011.tgz"), ("cvpr2016_cub", "cvpr2016_cub.tar.gz")):
        pack(manual("cub") / folder, archive)
    packed = load("cub", ("caption", "image"))
    assert list(packed.train.inputs) == ["caption", "image"] and packed.train.inputs["image"].shape[0] == 60
    assert packed.vocabularies["caption"][:3] == text.SPECIAL_WORDS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CUB_200_2011/images.txt", "cub: CUB_200_2011/images.txt is missing"),
        (
            "cvpr2016_cub/text_c10/001.Albatross/Albatross_0_7.txt",
            "cub: text_c10/001.Albatross/Albatross_0_7.txt is",
        ),
        (
            "CUB_200_2011/images/002.Auklet/Auklet_0_28.jpg",
            "cub: images/002.Auklet/Auklet_0_28.jpg is missing",
        ),
    ],
)
def test_missing_files(name, message, raw_files, load, manual):
    (manual("cub") / name).unlink()
    with pytest.raises(UserError, match=message) as error:
        load("cub")
    assert len(str(error.value).splitlines()) == 5


def test_damaged_files(raw_files, load, manual):
    path = manual("cub") / "cvpr2016_cub" / "text_c10" / f"{raw_files[5]}.txt"
    path.write_text("one caption\n")
    with pytest.raises(UserError, match=f"{path.name} cannot be read: 1 captions; expected 10"):
        load("cub")
    path = manual("cub") / "CUB_200_2011" / "images.txt"
    path.write_text("1\n")
    with pytest.raises(UserError, match="images.txt cannot be read: line 1 is '1'; expected 2 columns or more"):
        load("cub")


@pytest.mark.parametrize(("is_training", "split"), [(1, "test"), (0, "train")])
def test_an_empty_split(is_training, split, raw_files, load, manual):
    path = manual("cub") / "CUB_200_2011" / "train_test_split.txt"
    path.write_text("".join(f"{image} {is_training}\n" for image in raw_files))
    with pytest.raises(UserError, match=f"cub: the raw files hold no example of the split '{split}'"):
        load("cub")


def test_a_split_that_leaves_images_out(raw_files, load, manual):
    (manual("cub") / "CUB_200_2011" / "train_test_split.txt").write_text("1 1\n2 0\n")
    with pytest.raises(UserError, match="train_test_split.txt cannot be read: it has no line for 10 images, such as 3"):
        load("cub")


@pytest.fixture
def captions(raw_files, tmp_path):
    """A function () -> the captions, by image."""
    images = {image: f"{name}.jpg" for image, name in raw_files.items()}
    return lambda: cub_captions.read_captions(raw.RawFiles("cub", tmp_path, cub.ORIGIN), images, 10)


@pytest.mark.parametrize("folder", ["birds/text", "text", "captions/all"])
def test_captions_in_another_folder(folder, raw_files, captions, manual):
    wanted = captions()
    (manual("cub") / folder).parent.mkdir(parents=True, exist_ok=True)
    (manual("cub") / "cvpr2016_cub" / "text_c10").rename(manual("cub") / folder)
    assert captions() == wanted


def test_captions_of_all_photographs_in_one_file(raw_files, captions, manual):
    wanted, root = captions(), manual("cub")
    for part, file, classes in (("train", "trainval", ("001", "151")), ("test", "test", ("002", "200"))):
        names = sorted(
            (name for name in raw_files.values() if name.startswith(classes)), key=lambda name: name.split("/")
        )
        for name in names:
            path = root / "cub" / part / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        texts = [(root / "cvpr2016_cub" / "text_c10" / f"{name}.txt").read_text() for name in names]
        (root / "cub" / f"text_{file}classes.txt").write_text("".join(texts))
    shutil.rmtree(root / "cvpr2016_cub")
    assert captions() == wanted
    with (root / "cub" / "text_testclasses.txt").open("a") as file:
        file.write("one more\n" * 10)
    with pytest.raises(UserError, match="text_testclasses.txt cannot be read: it has captions of 7 photographs; exp"):
        captions()


def test_wrong_policy(load):
    with pytest.raises(UserError, match="config.data.policy is 'random'; allowed: class_disjoint, official"):
        load("cub", policy="random")


@pytest.mark.parametrize("network", ["by_kind", pytest.param("cub", marks=pytest.mark.slow)])
def test_the_whole_path(network, raw_files, quicktest):
    values = quicktest("cub", network=network)
    assert {"imputation/mse/caption_to_image", "imputation/log_likelihood/image_to_caption"} <= set(values)
