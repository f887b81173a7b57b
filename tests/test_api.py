"""A model fitted to arrays in memory: what it returns, and what that may not depend on."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax.data import dataset_from_arrays
from mmvm_jax.errors import Stopped, UserError
from mmvm_jax.experiments import run
from mmvm_jax.inference.prior import fitted_prior, read_prior

NAMES = tuple(tiny.KINDS)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """(model, its workdir, the state that training ended with)."""
    workdir, states = tmp_path_factory.mktemp("fit"), []
    with pytest.MonkeyPatch.context() as patch:
        train = run.train
        patch.setattr(run, "train", lambda *args: states.append(train(*args)) or states[0])
        model = mmvm_jax.fit(tiny.arrays(), tiny.config(), str(workdir))
    return model, workdir, states[0]


@pytest.fixture(scope="module")
def model(fitted):
    return fitted[0]


def assert_equal(one: dict, other: dict):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name, strict=True)


def assert_close(one: dict, other: dict):
    """Equal up to rounding; integers may fall to either side of a half."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        error = 1.0 if array.dtype.kind in "iu" else 1e-4 * max(1.0, np.nanmax(np.abs(array)))
        np.testing.assert_allclose(array, other[name], rtol=0, atol=error, err_msg=name)


def absent(data: dict, value) -> dict:
    """The data with another value wherever a modality is absent."""
    changed = dict(data)
    for name in NAMES:
        mask = data[f"{name}__present"].reshape(-1, *(1,) * (data[name].ndim - 1))
        fitting = value if data[name].dtype.kind == "f" else 7
        changed[name] = np.where(mask, data[name], np.asarray(fitting, data[name].dtype))
    return changed


def test_given_one_modality_the_joint_representation_is_its_own(model):
    data = tiny.arrays()
    encoded = model.encode({n: data[n] for n in ("height", "height__present")})
    np.testing.assert_allclose(encoded["joint__mean"], encoded["height__mean"], atol=1e-6)
    assert np.isnan(encoded["joint__mean"]).any() and np.isnan(encoded["photo__mean"]).all()


def test_what_is_there_stays_to_the_bit_and_the_rest_is_the_mean_of_the_draws(model):
    data = absent(tiny.arrays(), np.nan)
    imputed = model.impute(data, num_samples=5, keep_samples=True)
    assert sorted(imputed) == sorted(
        [*NAMES, *(f"{n}__std" for n in NAMES if n != "note"), *(f"{n}__samples" for n in NAMES)]
    )
    for name in NAMES:
        there, samples = data[f"{name}__present"], imputed[f"{name}__samples"]
        assert samples.shape == (tiny.N, 5, *data[name].shape[1:])
        assert imputed[name][there].tobytes() == data[name][there].tobytes()
        if name == "note":
            assert samples.dtype == np.int32 and samples.min() >= 0 and samples.max() < 9
            continue
        half = 0.5 if data[name].dtype.kind in "iu" else 0.0
        difference = np.abs(imputed[name] - samples.mean(axis=1))[~there]
        assert difference.max() <= half + 1e-4
        deviation = imputed[f"{name}__std"]
        noise = np.square(deviation[~there]) - samples.var(axis=1)[~there]  # of the data around their expected values
        expected = {"height": noise.mean(axis=0, keepdims=True), "spikes": samples.mean(axis=1)[~there]}.get(name, 0.0)
        np.testing.assert_allclose(noise, np.broadcast_to(expected, noise.shape), rtol=1e-2, atol=1e-2)
        assert name != "height" or (noise > 0).all()
        assert (deviation[there] == 0).all() and (deviation[~there] > 0).any(axis=tuple(range(1, deviation.ndim))).all()
        assert deviation.dtype == np.float32 and samples.dtype == (data[name].dtype if name == "height" else np.float32)
    assert imputed["photo__samples"].max() > 1.5  # in 0..255, as the input
    assert 100 < imputed["height__samples"].mean() < 240


@pytest.mark.parametrize("task", ["encode", "impute", "generate", "given"])
def test_the_batch_size_does_not_matter(model, task):
    def answers(batch_size):
        other = dataclasses.replace(model, predictor=dataclasses.replace(model.predictor, batch_size=batch_size))
        data = tiny.arrays()
        return {
            "encode": lambda: other.encode(data),
            "impute": lambda: other.impute(data, num_samples=2),
            "generate": lambda: other.generate(30),
            "given": lambda: other.generate(given={"photo": data["photo"]}),
        }[task]()

    assert_close(answers(4), answers(64))


@pytest.mark.parametrize("task", ["encode", "impute"])
def test_what_an_absent_entry_holds_is_not_read(model, task):
    run_task = {"encode": model.encode, "impute": lambda data: model.impute(data, num_samples=2)}[task]
    expected = run_task(absent(tiny.arrays(), 0.5))
    assert_equal(run_task(absent(tiny.arrays(), np.nan)), expected)
    assert_equal(run_task(absent(tiny.arrays(), 1e30)), expected)


def test_an_array_left_out_is_absent_everywhere(model):
    data = tiny.arrays(photo__present=np.ones(tiny.N))
    there = {**data, "note__present": np.zeros(tiny.N), "map__present": np.zeros(tiny.N)}
    left_out = {name: array for name, array in data.items() if not name.startswith(("note", "map"))}
    assert_equal(model.encode(there), model.encode(left_out))
    one, other = model.impute(there, num_samples=2), model.impute(left_out, num_samples=2)
    assert other["map"].dtype == np.float32 and other["note"].dtype == np.int32
    assert_close(one, other)


def test_an_example_may_have_nothing_to_be_represented_by(model):
    photo = tiny.arrays()["photo"]
    encoded = model.encode({"photo": photo, "photo__present": np.arange(tiny.N) != 7})
    np.testing.assert_array_equal(np.isnan(encoded["joint__mean"]).all(axis=1), np.arange(tiny.N) == 7)


def test_generated_examples_depend_on_seed_and_number_alone(model):
    made = model.generate(10)
    assert_close({name: array[:3] for name, array in made.items()}, model.generate(3))
    assert not np.array_equal(made["map"], model.generate(10, seed=1)["map"])
    assert not np.array_equal(made["map"][0], made["map"][1])


def test_what_is_made_has_the_shapes_of_the_data(model):
    """A grey image without an axis of channels, as given, a map with one."""
    made, shapes = model.generate(2), {name: array.shape[1:] for name, array in tiny.arrays().items() if name in NAMES}
    assert {name: array.shape[1:] for name, array in made.items()} == shapes and shapes["photo"] == (4, 4)
    imputed = model.impute({"height": tiny.arrays()["height"]}, num_samples=2, keep_samples=True)
    for name, shape in shapes.items():
        assert imputed[name].shape[1:] == shape and imputed[f"{name}__samples"].shape[2:] == shape


def test_generation_reads_what_is_given(model):
    data = {"height": tiny.arrays()["height"]}
    made = model.generate(given=data)
    assert made["note"].shape == (tiny.N, 5)
    moved = model.generate(given={"height": data["height"] + 30})
    assert not np.allclose(made["map"], moved["map"], atol=1e-3)


def test_a_workdir_is_enough(fitted):
    model, workdir, state = fitted
    jax.tree.map(np.testing.assert_array_equal, model.predictor.trained.params, jax.device_get(state.variables))
    again = mmvm_jax.load(str(workdir))
    assert_equal(again.encode(tiny.arrays()), model.encode(tiny.arrays()))
    assert_equal(again.generate(5), model.generate(5))
    for one, other in zip(again.predictor.prior, model.predictor.prior, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_a_workdir_nothing_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = mmvm_jax.fit({name: tiny.arrays()[name] for name in ("height", "spikes")}, tiny.config("joint"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("mmvm_jax_")]
    assert model.predictor.prior is None  # the method has its own
    assert np.isfinite(model.generate(4)["height"]).all()


def test_few_examples_need_no_configuration(monkeypatch):
    chosen = []
    monkeypatch.setattr(run, "train", lambda config, *rest: chosen.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mmvm_jax.fit({"height": tiny.arrays()["height"]})
    assert chosen[0].train.batch_size == 48 and chosen[0].train.epochs == 100


def test_a_prior_of_other_steps_is_not_used(fitted, tmp_path):
    model, _, _ = fitted
    dataset = dataset_from_arrays(tiny.arrays(), tiny.config().data)
    fitted_prior(tiny.config(), model.predictor.trained, dataset, str(tmp_path), 3)
    components = tiny.config().evaluation.mixture_components
    assert read_prior(str(tmp_path), 3, components) is not None
    assert read_prior(str(tmp_path), 4, components) is None
    assert read_prior(str(tmp_path), 3, components - 1) is None
    without = dataclasses.replace(model, predictor=dataclasses.replace(model.predictor, prior=None))
    with pytest.raises(UserError, match="'mmvm' has no prior of its own .*--mode=evaluate"):
        without.generate(2)


def test_a_workdir_with_other_data_is_refused(fitted):
    changed = tiny.arrays()
    changed["height"] = changed["height"] + 1
    with pytest.raises(UserError, match="holds a run on other data"):
        mmvm_jax.fit(changed, tiny.config(), str(fitted[1]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"hight": np.zeros((3, 3))}, "an array of the input is 'hight'; allowed: height, map"),
        ({"height": np.zeros((3, 4))}, r"'height' is \[3, 4\]; allowed: \[N, 3\], as in training"),
        ({"photo": np.zeros((3, 4, 5), int)}, r"'photo' is \[3, 4, 5\]; allowed: \[N, 4, 4, 1\]"),
        ({"height": np.zeros((3, 3)), "map": np.zeros((2, 4, 4, 2))}, "differ in length: height 3, map 2"),
        (
            {"height": np.full((30, 3), [0, np.nan, 0]), "height__present": np.arange(30) > 20},
            "'height' has NaN in 9 examples, the first is 21; allowed: only where 'height__present' is 0",
        ),
        ({"note": np.full((3, 5), 9)}, "'note' has the token id 9; allowed: 0 to 8"),
        ({"spikes": np.full((3, 4), -1)}, "'spikes' has the kind counts but values such as -1"),
        ({"photo": np.full((3, 4, 4), 256)}, "'photo' is an integer image with values from 256"),
        ({"height": np.zeros((0, 3))}, "the arrays have no examples: height"),
        ({"labels": np.zeros(3, int)}, "the data hold no modality"),
        ({"height": np.zeros((3, 3)), "height__present": np.full(3, 2)}, "'height__present' is int64"),
    ],
)
def test_wrong_data(model, data, message):
    with pytest.raises(UserError, match=message) as error:
        model.encode(data)
    assert "\n" not in str(error.value)


def test_imputation_starts_from_something(model):
    data = {"height": np.zeros((5, 3)), "height__present": np.arange(5) < 3}
    with pytest.raises(UserError, match="2 examples have no modality to start from, the first is 3"):
        model.impute(data)
    with pytest.raises(ValueError, match="either num_examples or given"):
        model.generate()
    with pytest.raises(ValueError, match="num_samples is 0; allowed: 1 to 1000000000"):
        model.impute({"height": np.zeros((5, 3))}, num_samples=0)
    with pytest.raises(ValueError, match="num_examples is 0; allowed: 1 to 1000000000"):
        model.generate(0)
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed is {seed}; allowed: 0 to 4294967295"):
            model.generate(1, seed=seed)
        with pytest.raises(ValueError, match=f"seed is {seed}; allowed: 0 to 4294967295"):
            model.impute({"height": np.zeros((5, 3))}, seed=seed)


def test_every_seed_up_to_the_last_is_one_of_its_own(model):
    made = [model.generate(1, seed=seed)["height"].tobytes() for seed in (0, 2**31 - 1, 2**31, 2**32 - 1)]
    assert len(set(made)) == 4


def test_an_entry_without_any_value_is_named():
    with pytest.raises(UserError, match="'height': entry 1 has no known value in the training examples"):
        mmvm_jax.fit({"height": np.where(np.arange(3) == 1, np.nan, np.ones((tiny.N, 3)))}, tiny.config())


def test_the_package_is_imported_without_the_training_code():
    code = "import sys, mmvm_jax; assert not {'jax', 'flax', 'numpy'} & set(sys.modules); mmvm_jax.fit"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        mmvm_jax.fitt  # noqa: B018


def test_what_a_mask_of_numpy_hides_is_not_read(model):
    height = np.ma.array(tiny.arrays()["height"], mask=np.ones((tiny.N, 1), bool) * (np.arange(3) == 1))
    with pytest.raises(
        UserError, match="array 'height' has NaN in .* examples, the first is 0; .* single entries may be missing"
    ):
        model.encode({"height": height})


def test_a_code_for_what_is_missing_is_not_answered_with_nonsense(model):
    height = np.full((4, 3), -1e39)
    for answer in (model.impute, lambda data: model.generate(given=data)):
        with pytest.raises(
            UserError, match="'height' has numbers beyond .* in 4 examples.* 'height__present' is 0, or NaN"
        ):
            answer({"height": height})
        spikes = tiny.arrays()["spikes"][:4]
        for marked in ({"height": height, "height__present": np.zeros(4)}, {"height": np.full((4, 3), np.nan)}):
            assert all(np.isfinite(array).all() for array in answer(marked | {"spikes": spikes}).values())
    with pytest.raises(UserError, match="'height' has NaN in 4 .*only where 'height__present' is 0"):
        model.impute({"height": np.where(np.arange(3) == 1, np.nan, 170.0) * np.ones((4, 1))})


def test_a_model_that_makes_nonsense_of_nothing_is_to_be_trained_again(model):
    """Where nothing was given, there are no inputs to look at."""
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), model.predictor.trained.params)
    trained = dataclasses.replace(model.predictor.trained, params=broken)
    with pytest.raises(UserError, match="is not finite; train another one, with a smaller config.optimizer.learning_r"):
        dataclasses.replace(model, predictor=dataclasses.replace(model.predictor, trained=trained)).generate(2)


def test_codes_that_leave_the_answer_finite_are_pointed_out(model, caplog):
    height = np.repeat(tiny.arrays()["height"][:1], 40, axis=0)
    model.encode({"height": height})
    assert not caplog.messages
    height[21:, 1] = -999
    model.encode({"height": height})
    (message,) = caplog.messages
    assert "array 'height' has values beyond 100 standard deviations" in message
    assert "the first in example 21" in message and "mark them in 'height__present'" in message


def test_counts_may_be_large():
    """Of single cells, say: what is made is of their size from the start, and training does not blow up."""
    counts = np.random.default_rng(0).negative_binomial(2, 0.0005, (tiny.N, 6))  # 4,000 on average
    config = tiny.config()
    config.data.kinds = "reads=counts"
    model = mmvm_jax.fit({"reads": counts, "height": tiny.arrays()["height"]}, config)
    made = model.impute({"height": tiny.arrays()["height"]})["reads"]
    assert made.dtype == np.float32 and 1_000 < np.median(made) < 16_000


def test_a_mask_of_integers_is_not_taken_for_a_black_image():
    mask = np.random.default_rng(0).random((tiny.N, 4, 4)) < 0.5
    model = mmvm_jax.fit({"mask": mask, "height": tiny.arrays()["height"]}, tiny.config())
    with pytest.raises(UserError, match="'mask' is an integer image with values up to 1 only; .* the type bool"):
        model.encode({"mask": mask.astype(np.uint8)})  # of what kind the array is was decided in training
    for allowed in (255 * mask.astype(np.uint8), mask.astype(float), mask):
        assert model.encode({"mask": allowed}).keys() == model.encode({"mask": mask}).keys()
    np.testing.assert_array_equal(model.encode({"mask": mask.astype(float)})["joint__mean"].shape, (tiny.N, 4))


def test_numbers_of_numpy_are_numbers(model):
    assert len(model.generate(np.int64(3))["height"]) == 3
    with pytest.raises(TypeError):
        model.generate(3.0)


def test_without_a_workdir_nothing_is_said_to_be_kept(monkeypatch):
    def stop(*args):
        raise Stopped("stopped and saved at step 3")

    monkeypatch.setattr(run, "train_run", stop)
    with pytest.raises(Stopped, match="stopped; nothing is kept, since no workdir was given"):
        mmvm_jax.fit(tiny.arrays(), tiny.config())
