"""Every configuration: valid, of the right types, and its networks train a step on arrays of its data's shapes."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from mmvm_jax.config import READ_BY_DATA_SETS, base
from mmvm_jax.data import DATASETS, celeba, hippocampal, mimic_cxr, mnist_svhn, uci_multiple_features
from mmvm_jax.errors import UserError
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.models.model import make_model
from mmvm_jax.networks import NETWORKS
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.method import choose, make_method, variants
from mmvm_jax.runtime import devices
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import init_state
from mmvm_jax.training.step import make_step
from mmvm_jax.types import Batch, Modality

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
STUDIES = sorted(path.stem for path in FOLDER.glob("studies/*.py"))
EXAMPLES = 8

_pictures = tuple(Modality(f"m{row}", (28, 28, 3), "image", "laplace", scale=0.75) for row in range(5))
_caption = dict(kind="tokens", likelihood="categorical", weight=128.0, vocabulary_size=1868, padding=1)
MODALITIES = {
    "celeba": celeba.MODALITIES,
    "cub": (Modality("caption", (32,), **_caption), Modality("image", (64, 64, 3), "image", "laplace", scale=0.75)),
    "hippocampal": hippocampal.MODALITIES,
    "mimic_cxr": mimic_cxr.MODALITIES,
    "mnist_svhn": mnist_svhn.MODALITIES,
    "own_data": (
        Modality("left", (8, 4, 1), "image", "laplace"),
        Modality("spectrum", (12,), "vector", "normal"),
        Modality("clicks", (6,), "counts", "poisson"),
        Modality("words", (7,), "tokens", "categorical", vocabulary_size=11, padding=0),
    ),
    "polydigits": _pictures[:3],
    "polymnist": _pictures,
    "polymnist_translated": _pictures[:3],
    "uci_multiple_features": uci_multiple_features.MODALITIES,
}
# Those whose networks no test in tests/data takes from raw files to the report in the default run.
STEPPED = (
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("celeba", "mimic_cxr")),
    "cub",
    "own_data",
    "polydigits",
)


def load(name: str):
    """The module of a configuration, by its path, as the command line reads it."""
    spec = importlib.util.spec_from_file_location(f"configs_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _leaves(config, prefix=""):
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _synthetic_batch(modalities) -> Batch:
    """Data of the right shapes; the first modality lacks half of the examples."""
    generator = np.random.default_rng(0)
    make = {
        "image": lambda m: generator.integers(0, 256, (EXAMPLES, *m.shape)).astype(np.uint8),
        "vector": lambda m: generator.normal(size=(EXAMPLES, *m.shape)).astype(np.float32),
        "counts": lambda m: generator.poisson(1.0, (EXAMPLES, *m.shape)).astype(np.uint8).astype(np.float32),
        "tokens": lambda m: generator.integers(0, m.vocabulary_size, (EXAMPLES, *m.shape)).astype(np.int32),
    }
    present = np.ones((len(modalities), EXAMPLES), bool)
    present[0, ::2] = False
    inputs = {modality.name: make[modality.kind](modality) for modality in modalities}
    return Batch(inputs, present, np.arange(EXAMPLES, dtype=np.int32), np.zeros(EXAMPLES, np.int32))


def test_every_data_set_has_a_configuration():
    assert {load(name).get_config().data.name for name in NAMES} == set(DATASETS)
    assert set(MODALITIES) == set(NAMES)


@pytest.mark.parametrize("variant", ["", "quicktest"])
@pytest.mark.parametrize("name", NAMES)
def test_fields_are_valid_and_of_the_base_types(name, variant):
    config, defaults = load(name).get_config(variant), dict(_leaves(base()))
    config.train.batch_size = max(config.train.batch_size, 4)  # the tests have four devices
    validate(config)
    values = dict(_leaves(config))
    assert values.keys() == defaults.keys()
    for field, value in values.items():
        assert type(value) is type(defaults[field]), field


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_valid_with_every_data_set(name, method):
    """As ``mmvm_jax.sweep`` asks for, unless told otherwise."""
    config = load(name).get_config()
    config.method.name, config.train.batch_size = method, max(config.train.batch_size, 4)
    validate(config)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_valid_for_every_method(name):
    module = load(f"studies/{name}")
    config = module.get_config()
    assert f"python -m mmvm_jax.sweep --config=configs/studies/{name}.py " in module.__doc__
    assert len(config.sweep.betas) >= 4 and len(config.sweep.seeds) >= 3
    for method in config.sweep.methods or variants():
        choose(config.method, method)
        validate(config)


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_has_the_command(name):
    module = load(name)
    assert f"python -m mmvm_jax.main --config=configs/{name}.py " in module.__doc__
    if name != "polydigits":
        assert "Time" in module.__doc__


def test_an_unknown_variant_is_refused():
    for name in NAMES:
        with pytest.raises(UserError, match="variant is 'quick'; allowed: quicktest"):
            load(name).get_config("quick")


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_fit_the_data(name):
    """All modalities of the data set, in their order: shapes of everything that a step of training touches."""
    config, modalities = load(name).get_config("quicktest"), MODALITIES[name]
    assert config.network.name in NETWORKS
    model, batch = make_model(modalities, config.network), _synthetic_batch(modalities)

    def evaluate(key):
        functions = model.bind(model.init(key))
        prepared = model.prepare(batch)
        posteriors = functions.encode(prepared.inputs)
        outputs = functions.decode(posteriors.mean)
        return posteriors, functions.output_log_likelihood(prepared, outputs), functions.mean(outputs)

    posteriors, log_likelihood, mean = jax.eval_shape(evaluate, jax.random.key(0))
    assert posteriors.mean.shape == (len(modalities), EXAMPLES, config.network.latent_dim)
    assert log_likelihood.shape == (len(modalities), EXAMPLES)
    for modality in modalities:
        assert mean[modality.name].shape == (EXAMPLES, *modality.shape)


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_of_training_is_finite(name):
    config, modalities = load(name).get_config("quicktest"), MODALITIES[name]
    config.network.latent_dim = 4
    config.method.meme.update({"num_samples": 1, "num_pseudo_inputs": 4})
    model, method = make_model(modalities, config.network), make_method(config.method)
    batch = _synthetic_batch(modalities)
    state = init_state(config, model, method, batch)
    hyper = hyper_parameters(config)
    step = devices.data_parallel(make_step(config, model, method, 10), reduced=True)
    after, metrics = step(state, batch, hyper)
    assert all(np.isfinite(value) for value in jax.device_get(metrics).values())
    for old, new in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params)):
        assert np.isfinite(new).all() and new.shape == old.shape
    assert metrics["grad_norm"] > 0


def test_fields_that_only_some_data_sets_read():
    assert READ_BY_DATA_SETS.keys() <= set(base().data)
    assert set().union(*READ_BY_DATA_SETS.values()) <= DATASETS.keys()
