"""A user's .npz: what is inferred, shown and refused."""

import logging

import numpy as np
import pytest

from mmvm_jax.config import own_data
from mmvm_jax.data import dataset_from_arrays, kinds
from mmvm_jax.data.description import describe
from mmvm_jax.data.rows import MemoryRows
from mmvm_jax.errors import UserError

N = 50


def arrays(**changes) -> dict[str, np.ndarray]:
    """One array of every kind, with labels; changes replace or, where None, remove arrays."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 30, (N, 8))
    words[np.arange(8) >= rng.integers(2, 9, N)[:, None]] = 0
    contents = {
        "photo": rng.integers(0, 256, (N, 12, 10, 3), dtype=np.uint8),
        "scan": rng.integers(0, 256, (N, 9, 9), dtype=np.uint8),
        "map": rng.random((N, 8, 8)),
        "height": rng.normal(170, 10, (N, 3)),
        "spikes": rng.poisson(0.8, (N, 7)),
        "note": words,
        "labels": np.arange(N) % 3,
    }
    return {name: array for name, array in {**contents, **changes}.items() if array is not None}


@pytest.fixture
def own(tmp_path, load):
    """A function (arrays, modalities, **fields) -> their data set."""

    def make(contents, modalities=(), **fields):
        np.savez(tmp_path / "my.npz", **contents)
        return load("own_data", modalities, path=str(tmp_path / "my.npz"), **fields)

    return make


def vectors(**changes):
    return {"a": np.random.default_rng(1).normal(size=(N, 4)), **changes}


def infer_kind(array, present) -> str:
    return kinds.infer_kind(kinds.read_facts(MemoryRows({"a": array}), "a", present))


def test_kinds_are_inferred(own):
    dataset = own(arrays())
    found = {m.name: (m.shape, m.kind, m.likelihood) for m in dataset.modalities}
    assert found == {
        "photo": ((12, 10, 3), "image", "laplace"),
        "scan": ((9, 9, 1), "image", "laplace"),
        "map": ((8, 8, 1), "image", "laplace"),
        "height": ((3,), "vector", "normal_learned_scale"),
        "spikes": ((7,), "counts", "poisson"),
        "note": ((8,), "tokens", "categorical"),
    }
    note = dataset.modalities[-1]
    assert (note.vocabulary_size, note.padding) == (30, 0)
    types = {name: array.dtype.name for name, array in dataset.train.inputs.items()}
    # Counts are not bytes, which a model takes for pixels.
    assert list(types.values()) == ["uint8", "uint8", "float32", "float32", "int32", "int32"]
    assert (dataset.num_classes, dataset.label_kind) == (3, "class")
    assert list(dataset.units) == ["height"]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.random.default_rng(0).normal(size=(N, 5, 6)), "vector"),  # negative: no picture
        (np.random.default_rng(0).poisson(9, (N, 20)), "vector"),
        (np.random.default_rng(0).poisson(2, (N, 20)), "counts"),
        (np.random.default_rng(0).poisson(0.2, (N, 20)), "counts"),  # many end in 0, but 0 is everywhere
        (np.zeros((N, 4), int), "binary"),
        (np.where(np.arange(N)[:, None] < 20, [2, 0, 0], [0, 1, 2]), "counts"),  # only 40 % end in 0
        (np.tile([5, 6, 6, 7, 7], (N, 1)), "tokens"),
        (np.tile([2, 1, 2, 1, 2, 2], (N, 1)), "counts"),
        (np.tile([2, 1, 0, 0], (N, 1)), "counts"),  # as visits, of which some lead to something, and few to more
        (np.tile([-1, 6, 7, 7], (N, 1)), "vector"),
        (np.random.default_rng(0).integers(0, 4, (N, 20)), "counts"),  # unpadded sequences are to be named
        (np.random.default_rng(0).integers(0, 40, (N, 20)), "vector"),
        (np.ones((N, 2), bool), "binary"),
        (np.tile([0.0, 1.0], (N, 1)), "binary"),
        (np.random.default_rng(0).negative_binomial(1, 0.1, (N, 20)), "counts"),
        (np.random.default_rng(0).negative_binomial(1, 0.1, (N, 20)).astype(float), "counts"),
        (np.minimum(np.random.default_rng(0).negative_binomial(1, 0.1, (N, 20)), 16), "vector"),  # a scale with an end
        (np.random.default_rng(0).poisson(2, (N, 20, 6)).astype(np.int16), "counts"),
        (np.rint(20 + np.random.default_rng(0).pareto(1.0, (N, 20)) * 50), "counts"),  # skewed, as proteins of cells
        (np.random.default_rng(0).integers(40, 90, (N, 3)) * [1, 1, 200], "vector"),  # one column dominates
        (np.random.default_rng(0).integers(1_700_000_000, 1_800_000_000, (N, 2)), "vector"),  # times
        (np.random.default_rng(0).integers(0, 255, (N, 8, 8)), "image"),
        (np.full((N, 2, 2, 2, 2), 0.5), "vector"),
    ],
)
def test_infer_kind(array, kind):
    assert infer_kind(array, np.ones(N, bool)) == kind


def test_only_present_examples_decide():
    array = np.full((N, 4, 4), 0.5)
    array[3] = -1
    present = np.arange(N) != 3
    assert infer_kind(array, present) == "image"
    assert infer_kind(array, ~present) == "vector"


def test_weights_are_those_of_the_kind_unless_given(own):
    weights = lambda **fields: {modality.name: modality.weight for modality in own(arrays(), **fields).modalities}
    default = weights()
    assert default["spikes"] == 0.25 and {w for name, w in default.items() if name != "spikes"} == {1.0}
    assert weights(weights="spikes=1, height=2e-1") == default | {"spikes": 1.0, "height": 0.2}
    for text, message in (
        ("height=much", "config.data.weights for 'height' is 'much'; allowed: 1e-06 to"),
        ("height=0", "config.data.weights for 'height' is 0.0; allowed: 1e-06 to"),
        ("hight=1", "the modality in config.data.weights is 'hight'; allowed: height"),
    ):
        with pytest.raises(UserError, match=message):
            own(arrays(), weights=text)


def test_the_table_shows_what_was_taken_for_what(own, caplog):
    caplog.set_level(logging.INFO, "mmvm_jax")
    own(arrays(photo__present=np.arange(N) % 2 == 0))
    lines = [" ".join(line.split()) for line in caplog.messages]
    assert any("40 training and 10 test examples, labels: class (3)" in line for line in lines)
    assert "spikes 7 counts poisson 0.25 100 %" in lines and "scan 9x9x1 image laplace 1 100 %" in lines
    assert any(line.startswith("photo 12x10x3 image laplace") and "100" not in line for line in lines)
    assert "config.data.kinds" in lines[-1]


def test_counts_start_from_their_mean_in_training(own):
    spikes, present = np.full((N, 2), 1), np.arange(N) < N - 5
    spikes[::2] = 4
    spikes[~present] = 99
    contents = {"spikes": spikes, "spikes__present": present, "none": np.zeros((N, 2), int), **vectors()}
    dataset = own(contents | {"split": np.arange(N) % 2}, kinds="none=counts")
    assert [m.scale for m in dataset.modalities] == [4.0, 1.0, 1.0]
    assert dataset.modalities[0].rates == (92.5 / 24, 92.5 / 24) and 0 < dataset.modalities[1].rates[0] < 0.1


def test_a_huge_count_does_not_decide_where_all_decoders_start(own, caplog):
    spikes = np.random.default_rng(0).poisson(2.0, (1000, 3))
    usual = own({"spikes": spikes, "split": np.arange(1000) >= 900}).modalities[0]
    np.testing.assert_allclose(usual.rates, spikes[:900].mean(axis=0), rtol=1e-2)
    spikes[5, 1] = 40_000_000
    dataset = own({"spikes": spikes, "split": np.arange(1000) >= 900}, kinds="spikes=counts")
    np.testing.assert_allclose(dataset.modalities[0].rates, usual.rates, rtol=0.1)
    assert dataset.train.inputs["spikes"][5, 1] == 40_000_000
    assert any("'spikes' has counts up to 40000000; if they are errors, mark them in" in m for m in caplog.messages)


def test_overrides(own):
    dataset = own(
        arrays(),
        ("spikes", "photo", "note"),
        kinds="spikes=tokens, note=counts",
        likelihoods="photo=bernoulli,note=normal",
    )
    found = [(m.name, m.kind, m.likelihood) for m in dataset.modalities]
    assert found == [
        ("spikes", "tokens", "categorical"),
        ("photo", "image", "bernoulli"),
        ("note", "counts", "normal"),
    ]
    assert dataset.modalities[0].vocabulary_size == arrays()["spikes"].max() + 1
    assert dataset.modalities[0].padding == -1
    vector = own(arrays(), ("scan",), kinds="scan=vector")
    assert vector.modalities[0].shape == (9, 9) and vector.train.inputs["scan"].dtype == np.float32


def test_names_with_spaces_can_be_overridden(own):
    dataset = own({"left eye": np.random.default_rng(0).random((N, 4, 4))}, kinds=" left eye = vector ")
    assert dataset.modalities[0].kind == "vector"


def test_images_of_truth_values_are_black_and_white(own):
    masks = np.random.default_rng(0).random((N, 4, 4)) < 0.5
    dataset = own({"mask": masks})
    assert dataset.modalities[0].kind == "image" and dataset.train.inputs["mask"].dtype == np.float32
    assert set(np.unique(dataset.train.inputs["mask"])) == {0.0, 1.0}
    assert describe(dataset).unit(dataset.modalities[0], masks.dtype)[1] == 1
    with pytest.raises(UserError, match="'mask' is an integer image with values up to 1 only; .* bool"):
        own({"mask": masks.astype(np.uint8)})
    with pytest.raises(UserError, match="with values up to 16 only; allowed: .* or another kind by .*mask=counts"):
        own({"mask": 16 * masks.astype(np.uint8)})


def test_units_come_from_present_training_examples(own):
    rng = np.random.default_rng(2)
    values, present = rng.normal(5, 3, (N, 4)), rng.random(N) < 0.7
    values[:, 3] = 9  # never varies
    values[~present] = np.nan
    split = np.array(["train", "test"])[np.arange(N) % 2]
    dataset = own({"a": values, "a__present": present, "b": np.ones((N, 1)), "split": split})
    mean, scale = dataset.units["a"]
    observed = values[0::2][present[0::2]]
    np.testing.assert_allclose(mean, observed.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale, [*observed.std(axis=0)[:3], 1], rtol=1e-6)
    for place, part in ((0, dataset.train), (1, dataset.test)):
        there = part.present[0]
        np.testing.assert_array_equal(there, present[place::2])
        np.testing.assert_allclose((part.inputs["a"] * scale + mean)[there], values[place::2][there], rtol=1e-5)
        assert (part.inputs["a"][~there] == 0).all()


@pytest.mark.parametrize("split", [np.arange(N) >= 35, np.where(np.arange(N) >= 35, "test", "train")])
def test_given_split(split, own):
    dataset = own({"a": np.arange(N)[:, None] + np.zeros(2, int), "split": split}, kinds="a=counts")
    np.testing.assert_array_equal(dataset.train.inputs["a"][:, 0], np.arange(35))
    np.testing.assert_array_equal(dataset.test.inputs["a"][:, 0], np.arange(35, N))


def test_drawn_split(own):
    contents = {"a": np.arange(N)[:, None] + np.zeros(2, int)}
    dataset = own(contents, kinds="a=counts")
    train, test = dataset.train.inputs["a"][:, 0], dataset.test.inputs["a"][:, 0]
    assert len(test) == 10 and sorted([*train, *test]) == list(range(N)) and test.max() - test.min() > 10
    assert dataset.fingerprint == own(contents, kinds="a=counts").fingerprint
    assert (dataset.num_classes, dataset.label_kind) == (0, "none") and (dataset.train.labels == -1).all()


def test_the_fingerprint_is_that_of_earlier_versions():
    """Or their runs could not go on."""
    b, there = np.arange(60.0).reshape(20, 3) / 7, np.arange(20) % 4 > 0
    b[~there] = np.nan
    contents = {"b": b, "a": np.arange(80, dtype=np.int16).reshape(20, 2, 2) * 3, "b__present": there}
    contents |= {"c": np.arange(40).reshape(20, 2) % 3, "labels": np.arange(20) % 2}
    assert dataset_from_arrays(contents, own_data().data).fingerprint == "d1e3e252019ab055"


def test_multilabel(own):
    labels = np.random.default_rng(0).integers(0, 2, (N, 4))
    dataset = own(vectors(labels=labels, split=np.arange(N) % 2))
    assert (dataset.num_classes, dataset.label_kind) == (4, "multilabel")
    np.testing.assert_array_equal(dataset.train.labels, labels[::2])


def test_examples_without_any_modality_are_left_out(own, caplog):
    caplog.set_level(logging.INFO, "mmvm_jax")
    present = np.arange(N) != 4
    dataset = own(vectors(a__present=present, split=np.arange(N) >= 40))
    assert len(dataset.train.labels) == 39 and dataset.train.present.all()
    assert "own_data: 1 training examples have no modality and are left out" in caplog.messages


def test_missing_adds_to_the_masks(own):
    rng = np.random.default_rng(3)
    contents = {name: rng.normal(size=(2000, 2)) for name in "ab"}
    present = {name: rng.random(2000) < 0.6 for name in "ab"}
    present["b"] |= ~present["a"]
    contents |= {f"{name}__present": mask for name, mask in present.items()} | {"split": np.arange(2000) >= 1900}
    before = own(contents)
    changed = {"pattern": "one_modality", "rate": 0.5, "modality": "b", "split": "train", "seed": 0}
    after = own(contents, missing=changed)
    assert not (after.train.present & ~before.train.present).any()
    assert after.train.present.any(axis=0).all()
    both = before.train.present.all(axis=0)
    assert 0.4 < after.train.present[1][both].mean() < 0.6
    only_b = ~before.train.present[0]
    assert after.train.present[1][only_b].all()  # what it would lose is all it has
    np.testing.assert_array_equal(after.test.present, before.test.present)


def bad(name, place, value):
    array = arrays()[name].astype(np.float64 if value != value else arrays()[name].dtype)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"height": np.ones((N - 1, 3))},
            "arrays differ in length: .*height 49.*; allowed: the same number of examples",
        ),
        ({"labels": np.zeros(N + 2, int)}, "arrays differ in length: .*labels 52"),
        (
            {"height": bad("height", (7, 1), np.inf)},
            "'height' has infinity in 1 examples, the first is 7",
        ),
        ({"map": bad("map", (3, 1), np.nan)}, "'map' has NaN.*only where 'map__present' is 0"),
        ({"photo": np.full((N, 4, 4, 3), 256)}, "'photo' is an integer image with values from 256 to 256"),
        ({"photo": np.full((N, 4, 4, 3), -1)}, "'photo' is an integer image with values from -1"),
        (
            {"labels": np.zeros((N, 2, 2), int)},
            r"'labels' is int64 \[50, 2, 2\].*; allowed: one class per example \[N\]",
        ),
        ({"labels": np.arange(N) / 7}, r"'labels' is float64 \[50\] of real numbers such as 0.14.*a measurement is a"),
        ({"labels": np.full(N, -1)}, r"'labels' is int64 \[50\] without a known class; allowed: one"),
        ({"labels": np.full((N, 3), 2)}, r"'labels' is int64 \[50, 3\], such as 2; allowed: .*or 0 and 1 \[N, C\]"),
        ({"split": np.zeros(N)}, "the test split is empty"),
        ({"split": np.ones(N)}, "the training split is empty"),
        ({"split": np.full(N, "dev")}, r"'split' is <U3 \[50\] with 'dev'; allowed: 0 or 1, 'train' or 'test', \[50\]"),
        ({"note__present": np.full(N, 2)}, r"'note__present' is int64 \[50\]; allowed: 0 or 1, \[50\]"),
        ({"not__present": np.ones(N)}, "'not__present' belongs to no modality; allowed: photo__present"),
        ({"note__present": np.zeros(N)}, "'note' is present in no training example"),
        ({"flat": np.zeros(N)}, r"'flat' is float64 \[50\]; allowed: numbers \[N, ...\]"),
        ({"names": np.full((N, 2), "x")}, r"'names' is <U1 \[50, 2\]; allowed: numbers"),
        ({"empty": np.zeros((N, 0))}, r"'empty' is float64 \[50, 0\]"),
        (
            {"objects": np.full((N, 2), {}, object)},
            r"array 'objects' is object \[50, 2\]; allowed: .*Python objects are not read from a file",
        ),
    ],
)
def test_wrong_arrays(changes, message, own):
    with pytest.raises(UserError, match=message) as error:
        own(arrays(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": "spike=counts"}, "the modality in config.data.kinds is 'spike'; allowed: .*spikes"),
        (
            {"kinds": "spikes=text"},
            "config.data.kinds for 'spikes' is 'text'; allowed: binary, counts, image, table, tokens, vector",
        ),
        (
            {"likelihoods": "spikes=laplace"},
            "config.data.likelihoods for 'spikes' is 'laplace'; allowed: negative_binomial, normal, poisson",
        ),
        ({"kinds": "height=counts"}, "'height' has the kind counts but values such as"),
        ({"kinds": "photo=tokens"}, r"'photo' has the kind tokens but shape \[50, 12, 10, 3\]"),
        ({"kinds": "spikes=image"}, r"'spikes' has the kind image but shape \[50, 7\]"),
        ({"modalities": ("photo", "x")}, "config.modalities is 'x'"),
    ],
)
def test_wrong_fields(fields, message, own):
    with pytest.raises(UserError, match=message):
        own(arrays(), **fields)


def test_wrong_files(load, tmp_path):
    with pytest.raises(UserError, match="config.data.path is '': no such"):
        load("own_data")
    (tmp_path / "my.npz").write_text("no archive")
    with pytest.raises(UserError, match="my.npz': not an .npz file"):
        load("own_data", path=str(tmp_path / "my.npz"))
    np.savez(tmp_path / "my.npz", labels=np.zeros(3, int))
    with pytest.raises(UserError, match="the data hold no modality"):
        load("own_data", path=str(tmp_path / "my.npz"))
    np.save(tmp_path / "my.npy", np.zeros(3))
    with pytest.raises(UserError, match="my.npy', a single modality; allowed: a folder"):
        load("own_data", path=str(tmp_path / "my.npy"))


def test_nothing_is_unpickled(own, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    with pytest.raises(
        UserError, match=r"array 'a' is object \[1\]; allowed: numbers.*Python objects are not read from a file"
    ):
        own({"a": np.array([Trap()], object)})
    assert not (tmp_path / "sprung").exists()
