"""Kills commands at random moments, and compares what they end with to what undisturbed ones do.

    PYTHONPATH=.:tests python tests/soak/kills.py --times=100

Rounds of three commands, each killed again and again until it has had its share of the kills: one that prepares data
and trains, one that trains, evaluates and reports, and a sweep. Prints a line a kill: the command, and what there was
on the disk. No checkpoint and no finished run may ever be lost.
"""

import collections
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import tiny
from absl import app, flags

from mmvm_jax.artifacts.metric_writers import read_metrics

_TIMES = flags.DEFINE_integer("times", 100, "Kills in all.")
_SHARE = flags.DEFINE_integer("share", 6, "Kills of one command before it may finish.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMINGS = ("train/seconds", "train/examples_per_second")
STEPS = ["--config.train.steps=60", "--config.train.checkpoint_every=10", "--config.train.log_every=5"]


def commands(folder: pathlib.Path) -> dict[str, list[str]]:
    """{name: arguments} of what is killed; each works in ``folder``."""
    np.savez(folder / "tiny.npz", **tiny.arrays(), labels=np.arange(tiny.N) % 3)
    own = ["--config=configs/own_data.py:quicktest", f"--config.data.path={folder}/tiny.npz", *STEPS]
    own += [f"--config.data.dir={folder}/own", "--config.modalities=('photo','height')"]
    digits = ["--config=configs/polydigits.py:quicktest", f"--config.data.dir={folder}/digits", *STEPS]
    return {
        "prepare": ["mmvm_jax.main", *digits, f"--workdir={folder}/prepare", "--mode=train"],
        "run": ["mmvm_jax.main", *own, f"--workdir={folder}/run"],
        "sweep": ["mmvm_jax.sweep", *own, f"--workdir={folder}/sweep", "--methods=mmvm,poe", "--betas=1", "--seeds=0"],
    }


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)  # fmt: skip


def finish(arguments: list[str]) -> float:
    """Runs a command to its end; returns the seconds that took."""
    began = time.monotonic()
    said = (process := start(arguments)).communicate(timeout=600)[0]
    assert process.returncode == 0, said
    return time.monotonic() - began


def kill(arguments: list[str], seconds: float) -> bool:
    """Kills a command some seconds after its start; returns whether it had not ended by then."""
    process = start(arguments)
    try:
        said = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, said
    return False


def results(folder: pathlib.Path, name: str) -> dict:
    """What the runs of a command have ended with, but for how long they took."""
    found = {}
    for workdir in sorted(path.parent for path in (folder / name).rglob("config.json")):
        key = str(workdir.relative_to(folder))
        found[key] = [(line["step"], line["loss"]) for line in read_metrics(str(workdir))]
        if (workdir / "evaluation.json").exists():
            values = json.loads((workdir / "evaluation.json").read_text())
            found[key + "/evaluation"] = {name: value for name, value in values.items() if name not in TIMINGS}
    return found


def kept(folder: pathlib.Path, name: str) -> dict[str, object]:
    """What must not be lost: the newest checkpoint's step of each run, and the bytes of finished evaluations."""
    there = {}
    for checkpoints in (folder / name).rglob("checkpoints"):
        steps = [int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()]
        there[str(checkpoints)] = max(steps, default=0)
    for path in (folder / name).rglob("evaluation.json"):
        there[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return there


def check_nothing_lost(before: dict, after: dict) -> None:
    for path, value in before.items():
        is_step = isinstance(value, int)
        assert path in after and (after[path] >= value if is_step else after[path] == value), (path, value, after)


def main(argv):
    del argv
    moments, done = random.Random(_SEED.value), collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        # One for all, so that it is kills that take the time.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(name, "compiled")))
        for folder in (first := pathlib.Path(name, "first"), quiet := pathlib.Path(name, "quiet")):
            folder.mkdir()
            seconds = {command: finish(arguments) for command, arguments in commands(folder).items()}
        shutil.rmtree(first)  # it compiled; the times are those of the other
        while done.total() < _TIMES.value:
            (folder := pathlib.Path(name, f"after{done.total()}")).mkdir()
            for command, arguments in commands(folder).items():
                for _ in range(min(_SHARE.value, _TIMES.value - done.total())):
                    before = kept(folder, command)
                    if not kill(arguments, moments.uniform(3.0, seconds[command])):
                        break
                    done[command] += 1
                    after = kept(folder, command)
                    shown = {str(pathlib.Path(path).relative_to(folder)): value for path, value in after.items()}
                    print(f"{done.total()}: {command}: {shown or 'nothing yet'}", flush=True)
                    check_nothing_lost(before, after)
                finish(arguments)
                assert results(folder, command) == results(quiet, command), command
            shutil.rmtree(folder)
    print(f"PASSED: {done.total()} kills ({dict(done)}), every command ended as if undisturbed")


if __name__ == "__main__":
    app.run(main)
