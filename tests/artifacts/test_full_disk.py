"""A full disk, simulated by a small file system: the error is one line, and the run resumes when there is room."""

import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import tiny

from mmvm_jax.artifacts import checkpoints
from mmvm_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWN_NAMESPACE = ["unshare", "--map-root-user", "--mount"]  # what is mounted there is seen by nobody else, and goes away


@pytest.fixture
def in_small_disk(tmp_path):
    """A function (megabytes, script) -> lines: what a shell says in whose folder $DISK there is so much room."""
    (disk := tmp_path / "disk").mkdir()
    mount = f"DISK={disk}; mount -t tmpfs -o size=$0m none $DISK"
    try:
        subprocess.run([*OWN_NAMESPACE, "bash", "-c", mount, "1"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine allows no file systems of one's own")

    def run(megabytes, script):
        command = [*OWN_NAMESPACE, "bash", "-c", f"{mount}; {script}", str(megabytes)]
        result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert "Traceback" not in result.stdout
        return result.stdout.splitlines()

    return run


def test_checkpoints_that_will_not_fit_are_noticed_before_training(in_small_disk, tmp_path):
    np.savez(tmp_path / "data.npz", **tiny.arrays(labels=None))
    train = (
        f"{sys.executable} -m mmvm_jax.main --config=configs/own_data.py:quicktest --mode=train --workdir=$DISK/run "
        f"--config.data.path={tmp_path}/data.npz --config.data.dir={tmp_path}/prepared"
        " --config.modalities=\"('photo','height')\" --config.train.steps=20 --config.train.checkpoint_every=5"
        "; echo exit code $?; ls $DISK/run/checkpoints"
    )
    lines = in_small_disk(14, f"{train}; mount -o remount,size=50m $DISK; {train}")
    (error,) = [line for line in lines if line.startswith("mmvm_jax: error")]
    assert re.search(
        r"/disk/run/checkpoints: the run needs [23]\d MB for its checkpoints, 1\d MB are free; make room", error
    )
    codes = [place for place, line in enumerate(lines) if line.startswith("exit code")]
    assert [lines[place] for place in codes] == ["exit code 1", "exit code 0"]
    assert sorted(lines[codes[1] + 1 :]) == ["15", "20"]


def test_a_disk_that_fills_up_during_training_leaves_the_checkpoints_before(tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=10_000_000)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: usage)
    state = {"weights": np.zeros(1_000_000, np.float32)}
    with checkpoints.Checkpoints(str(tmp_path)) as saved:
        with pytest.raises(UserError, match="the run needs 16 MB for its checkpoints, 10 MB are free"):
            saved.check_room_for_run(4_000_000)
        saved.save(5, state, {}, {})
        saved.check_room_for_run(3_000_000)
        usage.free = 3_000_000
        with pytest.raises(
            UserError, match="no space left on the disk for the checkpoint of step 10, which takes 5 MB"
        ):
            saved.save(10, state, {}, {})
        assert saved.latest_step == 5


def test_data_that_do_not_fit(in_small_disk, tmp_path):
    prepare = (
        f"{sys.executable} -m mmvm_jax.main --config=configs/polydigits.py:quicktest --mode=train "
        f"--workdir={tmp_path}/run --config.data.dir=$DISK/data"
    )
    lines = in_small_disk(4, f"{prepare}; echo exit code $?; find $DISK -type f")
    (place,) = [place for place, line in enumerate(lines) if line.startswith("exit code")]
    assert "No space left on device" in lines[place - 1] and "make room" in lines[place - 1]
    assert lines[place] == "exit code 1" and not any("record" in line for line in lines[place + 1 :])
