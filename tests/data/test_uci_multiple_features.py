"""UCI Multiple Features: six tables in both layouts, standardised by the training examples."""

import functools

import numpy as np
import pytest

from mmvm_jax.data import raw
from mmvm_jax.data import uci_multiple_features as uci
from mmvm_jax.errors import UserError


@functools.cache
def table(name: str) -> np.ndarray:
    """Random numbers whose first column tells the row, and a last column that never varies."""
    values = np.random.default_rng(0).normal(5, 3, (2000, uci.VIEWS[name]))
    values[:, 0], values[:, -1] = np.arange(2000), 7
    return np.round(values, 4)


@functools.cache
def content(layout: str, name: str) -> str:
    """The file of a view."""
    rows = table(name)
    if layout == "published":
        lines = ["  " + "  ".join(f"{value:.4f}" for value in row) + " " for row in rows]
    else:
        lines = [",".join(map(str, [*range(rows.shape[1]), 0]))]
        lines += [",".join(map(str, [*row, number // 200])) for number, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


@pytest.fixture(params=["published", "csv"])
def raw_files(request, manual):
    folder = manual("uci_multiple_features")
    for name in uci.VIEWS:
        path = folder / (f"mfeat-{name}" if request.param == "published" else f"mfeat-{name}.csv")
        path.write_text(content(request.param, name))
    return folder


def test_examples(raw_files, load):
    dataset = load("uci_multiple_features")
    assert [(m.name, m.shape) for m in dataset.modalities] == [(n, (size,)) for n, size in uci.VIEWS.items()]
    seen = []
    for split, count in ((dataset.train, 160), (dataset.test, 40)):
        np.testing.assert_array_equal(np.bincount(split.labels), np.full(10, count))
        for name in uci.VIEWS:
            mean, scale = dataset.units[name]
            original = split.inputs[name] * scale + mean
            rows = np.round(original[:, 0]).astype(int)
            np.testing.assert_allclose(original, table(name)[rows], atol=1e-3)
            np.testing.assert_array_equal(rows // 200, split.labels)
        seen.append(set(rows))
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 2000


def test_training_examples_are_standardised(raw_files, load):
    dataset = load("uci_multiple_features")
    for name, values in dataset.train.inputs.items():
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(values[:, :-1].std(axis=0), 1, atol=1e-5)
        assert (values[:, -1] == 0).all() and dataset.units[name][1][-1] == 1  # what never varies
        assert abs(dataset.test.inputs[name][:, 1].mean()) > 1e-4  # by the others' statistics


def test_some_views(raw_files, load):
    dataset = load("uci_multiple_features", ("mor", "fou"))
    assert list(dataset.train.inputs) == list(dataset.units) == ["mor", "fou"]


def test_wrong_files(raw_files, load):
    path = next(raw_files.glob("mfeat-kar*"))
    content = path.read_text()
    for broken, message in (
        (content.rstrip().rpartition("\n")[0], r"a table of shape \[1999, 64\]; expected \[2000, 64\]"),
        (content.replace("7.0", "seven").replace("7.0000", "seven"), "kar.* cannot be read"),
        ("", "kar.* cannot be read"),
    ):
        path.write_text(broken)
        with pytest.raises(UserError, match=message):
            load("uci_multiple_features")
    path.unlink()
    with pytest.raises(UserError, match="uci_multiple_features: mfeat-kar is missing"):
        load("uci_multiple_features")


@pytest.mark.parametrize("raw_files", ["published", "csv"], indirect=True)
@pytest.mark.parametrize("name", ["mfeat.{}", "mfeat_{}.txt", "data/MFEAT-{}.dat", "mfeat-{} (1)"])
def test_names_and_columns_as_others_write_them(name, raw_files, tmp_path):
    for path in list(raw_files.glob("mfeat-fou*")):
        target = raw_files / name.format("fou")
        target.parent.mkdir(exist_ok=True)
        lines = path.read_text().splitlines()
        if path.suffix == ".csv":  # an index in front, classes from one on, and names as a heading
            lines = [f"{row},{line.rpartition(',')[0]},{1 + row // 200}" for row, line in enumerate(lines[1:])]
            lines = [",".join(["", *(f"f{column}" for column in range(76)), "class"]), *lines]
        target.write_text("\r\n".join(lines))
        path.unlink()
    found, labels, _ = uci.read_view(raw.RawFiles("uci_multiple_features", tmp_path, uci.ORIGIN), "fou")
    np.testing.assert_allclose(found, table("fou"), rtol=1e-6)
    np.testing.assert_array_equal(labels, np.arange(2000) // 200)


def test_labels_must_agree(raw_files, load):
    path = raw_files / "mfeat-zer.csv"
    if path.exists():
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *reversed(lines[1:])]))
        with pytest.raises(UserError, match="zer.csv cannot be read: its labels differ"):
            load("uci_multiple_features")


@pytest.mark.parametrize("raw_files", ["csv"], indirect=True)
def test_the_whole_path(raw_files, quicktest):
    values = quicktest("uci_multiple_features", ("fou", "mor"))
    assert {"coherence/fou_to_mor", "coherence/mor_to_fou"} <= set(values)
