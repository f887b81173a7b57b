"""The self-check finds wrong values, and versions that are known to compute some are refused in one line."""

import subprocess
import sys

import jax
import jaxlib
import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax import versions
from mmvm_jax.errors import UserError
from mmvm_jax.experiments.run import run
from mmvm_jax.experiments.sweep import sweep
from mmvm_jax.inference import predictor
from mmvm_jax.runtime import devices, processes, self_check

KERNELS = ("kl_to_mixture", "product_of_experts", "mixture_log_density")
check = self_check.check.__wrapped__  # anew each time
AS_0_10_2 = "import jax, jaxlib; jaxlib.__version__ = '0.10.2'; "


def test_right_values_pass_on_every_device(monkeypatch):
    on_each_device = devices.on_each_device
    shapes = []

    def watch(*arguments):
        computed = on_each_device(*arguments)
        shapes.append(computed["kl_to_mixture"].shape)
        return computed

    monkeypatch.setattr(devices, "on_each_device", watch)
    errors = check()
    assert set(errors) == set(KERNELS) and max(errors.values()) < 1e-6
    assert shapes == [(jax.local_device_count(), 5, 10_000)] and jax.local_device_count() > 1


def test_it_is_as_large_as_what_jaxlib_0_10_2_computes_wrongly():
    posteriors, present = self_check._make_inputs()
    assert present.size > 32_768 and present.any(axis=0).all() and not present.all()
    assert posteriors.mean.dtype == np.float32


@pytest.mark.parametrize("value", [2.0, np.nan])
@pytest.mark.parametrize("name", KERNELS)
def test_a_single_wrong_value_on_one_device_is_found(name, value, monkeypatch):
    on_each_device = devices.on_each_device

    def spoil(*arguments):
        computed = on_each_device(*arguments)
        computed[name] = computed[name].copy()
        computed[name][-1, ..., -1] += value
        return computed

    monkeypatch.setattr(devices, "on_each_device", spoil)
    with pytest.raises(UserError, match=f"self-check: jaxlib .* computes wrong values on 'cpu' .{name} by") as caught:
        check()
    assert "install another version of jax and jaxlib, or use another device" in str(caught.value)
    assert caught.value.exit_code == 1 and len(str(caught.value).splitlines()) == 1


def test_wrong_values_in_another_process_stop_this_one_too(monkeypatch):
    monkeypatch.setattr(processes, "in_any_process", lambda condition: True)
    with pytest.raises(UserError, match="in another process"):
        check()


def test_a_version_that_is_known_to_be_wrong_is_refused(monkeypatch):
    monkeypatch.setitem(versions.KNOWN_WRONG, jaxlib.__version__, "everything, a report")
    with pytest.raises(UserError, match=rf"jaxlib {jaxlib.__version__} computes wrong values \(everything, a report\)"):
        check()


@pytest.mark.parametrize("module", ["main", "sweep", "infer"])
def test_a_command_on_such_a_version_ends_with_one_line(module, tmp_path):
    flags = [f"--workdir={tmp_path}/run"]
    flags += ["--task=generate", "--output=made.npz"] if module == "infer" else ["--config=configs/polydigits.py"]
    run_module = f"import runpy; runpy.run_module('mmvm_jax.{module}', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", AS_0_10_2 + run_module, *flags], capture_output=True, text=True)
    (line,) = result.stderr.splitlines()
    assert line.startswith("mmvm_jax: error: jaxlib 0.10.2 computes wrong values") and result.returncode == 2
    assert line.endswith("install another version: pip install 'jax!=0.10.2' 'jaxlib!=0.10.2'")


def test_importing_only_the_kernels_on_such_a_version_warns_once():
    twice = "import mmvm_jax.distributions, mmvm_jax.aggregation; import mmvm_jax.distributions"
    result = subprocess.run([sys.executable, "-c", AS_0_10_2 + twice], capture_output=True, text=True)
    (line,) = result.stderr.splitlines()
    assert "<string>:1: RuntimeWarning: jaxlib 0.10.2 computes wrong values" in line and result.returncode == 0


def _fit(folder):
    mmvm_jax.fit({"a": np.zeros((60, 3)), "b": np.ones((60, 2))}, workdir=folder)


def _load(folder):
    mmvm_jax.load(folder)


def _run(folder):
    run(tiny.config(), folder, "train", "")


def _sweep(folder):
    sweep(tiny.config(), folder, ["mmvm"], [1.0], [0], "")


@pytest.mark.parametrize("start", [_fit, _load, _run, _sweep])
def test_whatever_computes_begins_with_the_check(start, tmp_path, monkeypatch):
    def fail():
        raise UserError("found wrong values")

    monkeypatch.setattr(self_check, "check", fail)
    monkeypatch.setattr(predictor.run_folder, "read_config", lambda workdir: None)
    monkeypatch.setattr(predictor.run_folder, "read_description", lambda workdir: None)
    with pytest.raises(UserError, match="found wrong values"):
        start(str(tmp_path / "run"))
    assert not list(tmp_path.rglob("*.json"))
