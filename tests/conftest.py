"""What every test relies on: a CPU in four pieces, no silent broadcasting, two precisions, the oracles."""

import contextlib
import gc
import importlib.metadata
import os
import signal
import tempfile

# JAX reads these when it is first imported, so they are set before.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as commands do; JAX would set 1, also for their tests
flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    flags += " --xla_force_host_platform_device_count=4"
# Without these emitters XLA compiles twice as fast. A version that does not know a flag ends the process.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = flags.strip()
# Most programs here run once or twice: optimising them would take longer than they do. Tests of what users run are
# to be optimised as it is for them (experiments/test_main.py, training/test_determinism.py).
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "True")

# Many tests, and the processes that some start, compile the same programs: they share them for one session.
_compiled = tempfile.TemporaryDirectory(prefix="mmvm_jax_compiled_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Tracing makes many objects and little garbage: looking for it every 700 of them takes an eighth of the time.
gc.set_threshold(50_000, 10, 10)

# What a shell runs in the background ignores Ctrl-C, and so does all that it starts; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise ignored where nohup runs the tests

import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.runtime.progress import log
from mmvm_jax.types import DiagonalGaussian

jax.config.update("jax_numpy_rank_promotion", "raise")

# Files whose tests neither train whole runs nor start processes: `pytest -m fast` runs them while one works.
FAST = (
    "kernels/test_aggregation.py",
    "kernels/test_distributions.py",
    "kernels/test_kl_to_mixture.py",
    "kernels/test_masked_kernels.py",
    "kernels/test_shapes.py",
    "objectives/test_annealing.py",
    "objectives/test_objective_values.py",
    "networks/test_layers.py",
    "networks/test_normalization.py",
    "data/test_missing.py",
    "data/test_own_data.py",
    "data/test_raw.py",
    "data/test_text.py",
    "data/test_units.py",
    "data/test_forms.py",
    "data/test_labels.py",
    "evaluation/test_probe.py",
    "experiments/test_config_checks.py",
    "runtime/test_files.py",
    "test_launch.py",
    "test_rooms.py",
)

# Files that take longest. They run first, so that no worker is left with one of them when the others have finished.
LONG = (
    "runtime/test_processes.py",
    "experiments/test_main.py",
    "test_walkthrough.py",
    "runtime/test_object_storage.py",
    "training/test_determinism.py",
    "experiments/test_sweep.py",
    "test_api.py",
    "training/test_stability.py",
)


def pytest_collection_modifyitems(config, items):
    fast, long = ([config.rootpath / "tests" / path for path in paths] for paths in (FAST, LONG))
    for item in items:
        if item.path in fast:
            item.add_marker("fast")
    items.sort(key=lambda item: long.index(item.path) if item.path in long else len(long))


@pytest.fixture(autouse=True)
def log_reaches_pytest():
    """Tests may run commands or libraries that redirect or disable loggers in this process."""
    log.disabled, log.propagate = False, True


@pytest.fixture(autouse=True, scope="module")
def compiled_for_one_module_only():
    """Every compiled program holds memory maps, of which Linux gives a process 65,530: the suite needs more."""
    yield
    jax.clear_caches()


class Precision(NamedTuple):
    """A float type, and how closely a closed form must meet a float64 reference in it."""

    dtype: str
    relative: float
    absolute: float  # floor, in nats: what cancels in a sum of some ten terms of order ten

    def check(self, actual, expected, message=""):
        assert actual.dtype == self.dtype, message
        np.testing.assert_allclose(actual, expected, rtol=self.relative, atol=self.absolute, err_msg=message)


PRECISIONS = (Precision("float64", 1e-12, 1e-14), Precision("float32", 1e-5, 1e-5))


@contextlib.contextmanager
def use_float64(use: bool = True):
    """Compute floats in float64, or in float32, inside a ``with`` block."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", use)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture
def in_float64():
    """``with in_float64():`` is for tests of which only a part is to be in float64."""
    return use_float64


@pytest.fixture
def x64():
    """Float64 for one test."""
    with use_float64():
        yield


@pytest.fixture(params=PRECISIONS, ids=lambda precision: precision.dtype)
def precision(request):
    """The test runs in float64 and in float32, the type that ``jnp.asarray`` gives to floats."""
    with use_float64(request.param.dtype == "float64"):
        yield request.param


@pytest.fixture(scope="session")
def oracles():
    """Float64 reference values of the kernels."""
    return json.loads((pathlib.Path(__file__).parent / "oracles" / "kernels.json").read_text())


@pytest.fixture(scope="session")
def random_gaussian():
    """A function (seed, *shape) -> DiagonalGaussian: means of scale 1.5, log-variances of scale 0.7."""

    def draw(seed: int, *shape: int) -> DiagonalGaussian:
        generator = np.random.default_rng(seed)
        mean, log_variance = 1.5 * generator.normal(size=shape), 0.7 * generator.normal(size=shape)
        return DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_variance))

    return draw


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where prepared data and classifiers live during a session; each is made once."""
    return str(tmp_path_factory.mktemp("data"))
