"""Test the package with the oldest and the newest versions of its dependencies, on every supported Python.

    python tests/versions.py [--rows=3.11-oldest,3.13-newest] [--jobs=2]

Each row of the printed table is a fresh virtual environment, made with uv (of the extra ``test``). In "oldest" every
dependency has its lower bound in ``setup.cfg``; "newest" is what uv chooses. In each environment ``TESTS`` run:
kernels, objectives, banks of networks, a resumed training, a whole run with its report, inference. A row is skipped
if its Python is not on this machine. The exit code is 1 if a row fails.
"""

import argparse
import concurrent.futures
import configparser
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROWS = tuple(f"{python}-{age}" for python in ("3.11", "3.12", "3.13") for age in ("oldest", "newest"))
SHOWN = ("jax", "flax", "orbax-checkpoint", "numpy", "scikit-learn")
TESTS = (
    "tests/kernels/test_distributions.py",
    "tests/kernels/test_kl_to_mixture.py::test_bounds_meet_the_oracle",
    "tests/kernels/test_kl_to_mixture.py::test_monte_carlo_meets_the_quadrature",
    "tests/kernels/test_kl_to_mixture.py::test_gradients_are_finite_differences",
    "tests/objectives/test_objective_values.py",
    "tests/networks/test_bank.py",
    "tests/training/test_loop.py::test_training_in_two_parts_equals_training_at_once",
    "tests/experiments/test_main.py::test_a_run_writes_everything_that_others_read",
    "tests/inference/test_infer.py::test_the_command_gives_what_the_interface_gives",
)
# An old release may call a newer one, installed with it, in a way that has since been deprecated.
PYTEST = ("-m", "pytest", "-q", "--tb=short", "-W", "default", "-p", "no:cacheprovider", "-o", "addopts=")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="separated by commas (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="how many rows to test at the same time")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    if not set(rows) <= set(ROWS):
        parser.error(f"--rows is {arguments.rows!r}; allowed: {', '.join(ROWS)}")
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        lines = list(pool.map(test_row, rows))
    print_table([("Python", "versions", *SHOWN, "outcome"), *lines])
    sys.exit(any(line[-1].startswith("failed") for line in lines))


def test_row(row: str) -> tuple[str, ...]:
    """Return one line of the table: Python, the age of the versions, those in ``SHOWN``, the outcome."""
    python, age = row.split("-")
    unknown = ("-",) * len(SHOWN)
    interpreter = find_interpreter(python)
    if interpreter is None:
        return python, age, *unknown, f"skipped: Python {python} is not on this machine"
    with tempfile.TemporaryDirectory(prefix=f"{row}-") as folder:
        command, versions = os.path.join(folder, "bin", "python"), unknown
        try:
            run(sys.executable, "-m", "uv", "venv", "-q", "--clear", "--python", interpreter, folder)
            run(sys.executable, "-m", "uv", "pip", "install", "-q", "--python", command, "pytest", *requirements(age))
            code = f"from importlib.metadata import version; print(*map(version, {SHOWN}))"
            versions = run(command, "-c", code).split()
            outcome = run(command, *PYTEST, *TESTS).splitlines()[-1]
        except subprocess.CalledProcessError as error:
            print(f"{row}: {error}", error.stdout, error.stderr, sep="\n", flush=True)
            outcome = f"failed: {(error.stdout or error.stderr).splitlines()[-1]}"
    return python, age, *versions, outcome


def find_interpreter(version: str) -> str | None:
    """Return a Python of this version that can make environments: this one, one on PATH, or one of pyenv."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    on_path = shutil.which(f"python{version}")  # may be a command of pyenv that starts nothing
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for path in (sys.executable, on_path, *glob.glob(f"{pyenv}/versions/{version}.*/bin/python")):
        if path and subprocess.run([path, "-c", code], capture_output=True, text=True).stdout.strip() == version:
            return path
    return None


def requirements(age: str) -> list[str]:
    """Return what the package needs: the lines of ``setup.cfg``, or each at its lower bound if ``age`` is "oldest"."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")[1:]
    return [re.sub(r">=([\w.]+)[^;]*", r"==\1", line) if age == "oldest" else line for line in lines]


def run(*command: str) -> str:
    """Return what a command prints, when it has ended well."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def print_table(lines: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


if __name__ == "__main__":
    main()
