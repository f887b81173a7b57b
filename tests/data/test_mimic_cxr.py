"""MIMIC-CXR: pairs of views in the published layout."""

import csv
import gzip
import io

import numpy as np
import pytest
from PIL import Image

from mmvm_jax.data import mimic_cxr, on_disk, raw
from mmvm_jax.errors import UserError

# Views of each study; which are used is said by the names.
STUDIES = {
    ("10000001", "50000001"): ("PA", "LATERAL"),
    ("10000002", "50000002"): ("AP", "PA", "AP", "LL"),  # three frontals and one lateral
    ("10000002", "50000003"): ("PA",),
    ("10000003", "50000004"): ("LATERAL", "LL", "AP"),
    ("10000003", "50000005"): ("LATERAL",),
    ("10000004", "50000006"): ("SWIMMERS", "", "LPO"),  # no view that is used
    ("10000005", "50000007"): ("PA", "LATERAL"),  # no findings
    **{(f"100001{n:02d}", f"500001{n:02d}"): ("PA", "LL") for n in range(20)},
}
WITHOUT_FINDINGS = "50000007"


def findings(study: str) -> list[str]:
    """Positive, negative, uncertain and blank entries."""
    number = int(study)
    return [("1.0", "0.0", "-1.0", "")[(number + row) % 4] for row in range(14)]


def grey(study: str, place: int) -> int:
    return 60 * place + int(study) % 50


@pytest.fixture(params=["2.0.0", "2.1.0"])
def raw_files(request, manual):
    folder = manual("mimic_cxr")
    rows = []
    for (subject, study), views in STUDIES.items():
        path = folder / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
        path.mkdir(parents=True)
        for place, view in enumerate(views):
            dicom = f"{study}-{place:04d}-aa"
            # The middle square of a wide picture is grey, the rest is black.
            picture = np.zeros((704, 896), np.uint8)
            picture[:, 96:800] = grey(study, place)
            Image.fromarray(picture).save(path / f"{dicom}.jpg", quality=95)
            rows.append((dicom, subject, study, view))
    write(
        folder / f"mimic-cxr-{request.param}-metadata.csv.gz",
        ("dicom_id", "subject_id", "study_id", "ViewPosition"),
        rows,
    )
    known = [(*key, *findings(key[1])) for key in STUDIES if key[1] != WITHOUT_FINDINGS]
    write(
        folder / f"mimic-cxr-{request.param}-chexpert.csv.gz",
        ("subject_id", "study_id", *mimic_cxr.FINDINGS),
        known,
    )
    return folder


def write(path, names, rows):
    content = io.StringIO()
    csv.writer(content).writerows([names, *rows])
    path.write_bytes(gzip.compress(content.getvalue().encode()))


def examples(dataset):
    """(grey of the frontal, of the lateral or None, findings) of all examples of both splits."""
    for split in (dataset.train, dataset.test):
        for row in range(len(split.labels)):
            shades = []
            for name, present in zip(split.inputs, split.present[:, row], strict=True):
                picture = split.inputs[name][row].astype(int)
                assert picture.shape == (224, 224, 1) and np.ptp(picture[:, 2:-2]) <= 3
                shades.append(int(np.median(picture)) if present else None)
            yield *shades, tuple(split.labels[row])


def expected(policy: str):
    for (_, study), views in STUDIES.items():
        sides = [
            [grey(study, place) for place, view in enumerate(views) if view in wanted]
            for wanted in (("PA", "AP"), ("LATERAL", "LL"))
        ]
        if study == WITHOUT_FINDINGS or not any(sides) or (policy == "paired" and not all(sides)):
            continue
        label = tuple(int(value == "1.0") for value in findings(study))
        yield from ((a, b, label) for a in sides[0] or [None] for b in sides[1] or [None])


@pytest.mark.parametrize("policy", ["paired", "all"])
@pytest.mark.parametrize("part_size", [on_disk.PART_SIZE, 1_000_000])
def test_pairs(part_size, policy, raw_files, load, monkeypatch):
    monkeypatch.setattr(on_disk, "PART_SIZE", part_size)
    monkeypatch.setattr(mimic_cxr, "SHARES", (0.7, 0.7))  # all subjects are in training or test
    dataset = load("mimic_cxr", policy=policy)
    assert [m.name for m in dataset.modalities] == ["frontal", "lateral"]
    assert dataset.class_names == mimic_cxr.FINDINGS and dataset.label_kind == "multilabel"
    assert_same_examples(examples(dataset), expected(policy))
    assert dataset.train.present.all() and dataset.test.present.all() or policy == "all"


def assert_same_examples(actual, wanted):
    actual, wanted = (sorted(items, key=str) for items in (list(actual), list(wanted)))
    remaining = list(wanted)
    for first, second, label in actual:  # JPEG may change a shade by a little
        match = next(
            item
            for item in remaining
            if item[2] == label and all(near(x, y) for x, y in zip(item[:2], (first, second), strict=True))
        )
        remaining.remove(match)
    assert not remaining


def near(x, y) -> bool:
    return x is y is None or None not in (x, y) and abs(x - y) <= 2


def test_one_view_alone_needs_no_other(raw_files, load, monkeypatch):
    monkeypatch.setattr(mimic_cxr, "SHARES", (0.7, 0.7))
    dataset = load("mimic_cxr", ("lateral",), policy="all")
    for split in (dataset.train, dataset.test):
        assert split.present.shape == (1, len(split.labels)) and split.present.all()


def test_a_few_subjects_are_too_few(raw_files, load, monkeypatch):
    monkeypatch.setattr(mimic_cxr, "SHARES", (0.8, 1.0))
    with pytest.raises(UserError, match="mimic_cxr: the raw files hold no example of the split 'test'"):
        load("mimic_cxr")


def test_subjects_are_split(raw_files):
    subjects = {str(number) for number in range(1000)}
    split_of = mimic_cxr.split_subjects(subjects)
    assert set(split_of) == subjects
    counts = [list(split_of.values()).count(split) for split in ("train", "validation", "test")]
    assert counts == [800, 100, 100]
    assert [split_of[str(n)] for n in range(100)] != ["train"] * 100


def test_a_subject_is_in_the_same_split_whatever_the_policy(raw_files, load, monkeypatch):
    monkeypatch.setattr(mimic_cxr, "SHARES", (0.6, 0.6))
    paired, everything = (load("mimic_cxr", policy=policy) for policy in ("paired", "all"))
    for mine, theirs in ((paired.train, everything.train), (paired.test, everything.test)):
        assert len(mine.labels) > 1
        seen = {picture.tobytes() for picture in theirs.inputs["frontal"]}
        assert all(picture.tobytes() in seen for picture in mine.inputs["frontal"])


def test_wrong_requests(raw_files, load):
    with pytest.raises(UserError, match="config.data.policy is 'some'; allowed: all, paired"):
        load("mimic_cxr", policy="some")
    path = next(raw_files.glob("*metadata*"))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(UserError, match="metadata.csv.gz cannot be read"):
        load("mimic_cxr")
    path.write_bytes(gzip.compress(gzip.decompress(content).replace(b"ViewPosition", b"View")))
    with pytest.raises(UserError, match="it has no column ViewPosition"):
        load("mimic_cxr")
    path.write_bytes(content)
    next(raw_files.glob("files/*/p10000001/*/*0001-aa.jpg")).unlink()
    with pytest.raises(UserError, match="mimic_cxr: p10/p10000001/s50000001/50000001-0001-aa.jpg is missing"):
        load("mimic_cxr")
    path.unlink()
    with pytest.raises(UserError, match="mimic_cxr: mimic-cxr-2.0.0-metadata.csv.gz is missing"):
        load("mimic_cxr")


def test_findings_as_others_write_them(raw_files, tmp_path):
    files = lambda: raw.RawFiles("mimic_cxr", tmp_path, mimic_cxr.ORIGIN)
    wanted, path = mimic_cxr.read_findings(files()), next(raw_files.glob("*chexpert*"))
    text = gzip.decompress(path.read_bytes()).decode()
    path.unlink()
    for changed in (text.replace("1.0", "1"), text.replace(",", ", "), text.replace("\r", ",,\r")):
        path.with_suffix("").write_text(changed)
        found = mimic_cxr.read_findings(files())
        assert found.keys() == wanted.keys() and all((found[study] == wanted[study]).all() for study in wanted)
    path.with_suffix("").write_text(text.replace(",1.0", ",maybe", 1))
    with pytest.raises(UserError, match=r"chexpert.csv cannot be read: line \d+ has 'maybe'; expected 1 or 0"):
        mimic_cxr.read_findings(files())


def test_pictures_in_one_folder_are_found_and_missing_ones_counted(raw_files, load, monkeypatch):
    for path in raw_files.glob("files/**/*.jpg"):
        path.rename(raw_files / path.name)
    load("mimic_cxr")
    for path in raw_files.glob("500001*.jpg"):
        path.unlink()
    monkeypatch.setattr(mimic_cxr, "read_views", None)
    with pytest.raises(UserError, match=r"mimic_cxr: \d\d of \d\d files, such as p10/p1000.*, are missing"):
        load("mimic_cxr", policy="all")


@pytest.mark.slow
@pytest.mark.parametrize("raw_files", ["2.1.0"], indirect=True)
def test_the_whole_path(raw_files, quicktest):
    values = quicktest("mimic_cxr")
    assert {"imputation/mse/frontal_to_lateral", "imputation/mse/lateral_to_frontal"} <= set(values)
