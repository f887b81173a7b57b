"""The compilation cache: the second start of a program compiles nothing, and what the user has set stays."""

import os
import subprocess
import sys

import jax
import pytest

from mmvm_jax.runtime import compilation_cache

FIT = """
import mmvm_jax, tiny
config = tiny.config()
config.train.steps = 1
data = {"height": tiny.arrays()["height"]}
mmvm_jax.fit(data, config, "run")
"""
LOAD = """
import mmvm_jax
print(mmvm_jax.load("run").generate(3)["height"].shape)
"""
SWEEP = """
import mmvm_jax.config, numpy as np, tiny
from mmvm_jax.experiments import sweep
class Reached(Exception): pass
def stop(*args): raise Reached
sweep.load_dataset = stop
config = tiny.config()
try:
    sweep.sweep(config, "sweep", ["mmvm"], [1.0], [0], "")
except Reached:
    import jax
    print(jax.config.jax_compilation_cache_dir)
"""


def _start(program: str, folder, **environment) -> str:
    """Runs a program in a process of its own, in a folder that its user has as home."""
    tests = os.path.dirname(os.path.dirname(__file__))
    unset = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    paths = {"HOME": str(folder), "PYTHONPATH": os.pathsep.join([tests, os.path.dirname(tests)])}
    environment = inherited | paths | environment
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _kept(folder) -> set[str]:
    return {name for name in os.listdir(folder) if name.endswith("-cache")}


def test_a_second_start_of_fit_and_load_compiles_nothing(tmp_path):
    """Programs of any compilation time are kept, which also shows that this setting of the user's stays."""
    every = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    cache = tmp_path / ".cache" / "mmvm_jax" / "data" / "compiled"
    _start(FIT, tmp_path, **every)
    of_fit = _kept(cache)
    _start(LOAD, tmp_path, **every)
    of_both = _kept(cache)
    assert of_fit and of_fit < of_both
    (tmp_path / "run").rename(tmp_path / "first")
    _start(FIT + LOAD, tmp_path, **every)
    assert _kept(cache) == of_both
    assert set(os.listdir(tmp_path)) == {".cache", "first", "run"}


def test_the_setting_of_the_user_stays(tmp_path):
    assert _start(SWEEP, tmp_path).strip() == str(tmp_path / ".cache" / "mmvm_jax" / "data" / "compiled")
    mine = str(tmp_path / "mine")
    assert _start(SWEEP, tmp_path, JAX_COMPILATION_CACHE_DIR=mine).strip() == mine


@pytest.fixture
def nothing_set(monkeypatch):
    """No cache as yet; afterwards that of the session."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_first_folder_stays(nothing_set, tmp_path):
    compilation_cache.enable(tmp_path / "a")
    compilation_cache.enable(tmp_path / "b")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "a" / "compiled") and not (tmp_path / "b").exists()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5


def test_a_folder_that_cannot_be_written_is_named_and_does_no_harm(nothing_set, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level("WARNING", logger="mmvm_jax"):
        compilation_cache.enable(tmp_path / "file")
    assert f"{tmp_path}/file/compiled cannot be written (" in caplog.text
    assert jax.config.jax_compilation_cache_dir is None
