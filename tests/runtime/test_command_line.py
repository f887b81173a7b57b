"""What every command answers when it is asked wrongly, and when it is itself at fault."""

import os
import subprocess
import sys

import pytest

FAULTY = """
from mmvm_jax.runtime import command_line

def work():
    raise ZeroDivisionError("division of\\nsomething")

command_line.start(work, "")
"""
MODULES = ("main", "sweep", "infer")


def answer(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("module", MODULES)
def test_without_arguments_a_command_says_what_to_type(module):
    result = answer("-m", f"mmvm_jax.{module}")
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert f"are needed, for example: python -m mmvm_jax.{module} --" in line
    assert "\x1b" not in line  # no colours, whatever the terminal


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--seeds=", "--seeds is empty; allowed: one or more integers, separated by commas"),
        ("--betas=", "--betas is empty; allowed: one or more numbers, separated by commas"),
        ("--config.sweep.betas=(1.0,'x')", "config.sweep.betas=1.0,x; allowed: numbers, separated by commas"),
        ("--seeds=1.5", "--seeds=1.5; allowed: integers, separated by commas"),
    ],
)
def test_wrong_numbers_of_a_sweep(flag, message, tmp_path):
    result = answer("-m", "mmvm_jax.sweep", "--config=configs/polydigits.py", f"--workdir={tmp_path}", flag)
    assert (result.returncode, result.stderr) == (2, f"mmvm_jax: error: {message}\n")


@pytest.mark.parametrize(
    ("module", "option", "message"),
    [
        ("main", "method.mmvae_plus.private_dim=8", "an option of the method mmvae_plus, not of mmvm"),
        ("main", "network.mlp.hidden_dims=(3,)", "an option of the network mlp and by_kind, not of small_cnn"),
        ("main", "data.path=my.npz", "an option of the data set own_data, not of polydigits"),
        ("sweep", "method.mmvm.alpha=0.3", "an option of the method mmvm, not of joint, meme"),
    ],
)
def test_an_option_that_would_not_be_read(module, option, message, tmp_path):
    extra = ["--methods=poe,mopoe,meme"] if module == "sweep" else []
    flags = [f"--workdir={tmp_path}/run", f"--config.{option}", *extra]
    result = answer("-m", f"mmvm_jax.{module}", "--config=configs/polydigits.py", *flags)
    assert result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("run/*.json"))


def test_a_sweep_whose_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = answer("-m", "mmvm_jax.sweep", "--config=configs/polydigits.py", f"--workdir={tmp_path}/file")
    assert result.returncode == 2 and "cannot be written (File exists); use another folder" in result.stderr


@pytest.mark.parametrize("module", ["main", "sweep"])
def test_help_shows_the_flags_that_errors_speak_of(module):
    shown = answer("-m", f"mmvm_jax.{module}", "--help").stdout
    assert all(f"--{flag}" in shown for flag in ("config", "workdir", "num_processes", "process_id", "[no]verbose"))


def test_devices_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    result = answer("-m", "mmvm_jax.main", "--config=configs/polydigits.py", f"--workdir={tmp_path}")
    assert result.returncode == 2 and result.stderr.startswith("mmvm_jax: error: JAX_PLATFORMS=cuda: JAX finds no such")


def test_an_error_of_the_program_is_one_line_and_with_verbose_its_traceback():
    result = answer("-c", FAULTY)
    line = "mmvm_jax: error: ZeroDivisionError: division of (an error in the program; --verbose shows where)\n"
    assert (result.returncode, result.stderr) == (1, line)
    result = answer("-c", FAULTY, "--verbose")
    assert result.returncode == 1 and "Traceback (most recent call last)" in result.stderr
    assert "ZeroDivisionError: division of\nsomething" in result.stderr
