"""What every command answers when it is asked wrongly, and when it is itself at fault."""

import os
import subprocess
import sys

import pytest

FAULTY = """
from mmvm_jax import command_line

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


def test_an_error_of_the_program_is_one_line_and_with_verbose_its_traceback():
    result = answer("-c", FAULTY)
    line = "mmvm_jax: error: ZeroDivisionError: division of (an error of the program; --verbose shows where)\n"
    assert (result.returncode, result.stderr) == (1, line)
    result = answer("-c", FAULTY, "--verbose")
    assert result.returncode == 1 and "Traceback (most recent call last)" in result.stderr
    assert "ZeroDivisionError: division of\nsomething" in result.stderr
