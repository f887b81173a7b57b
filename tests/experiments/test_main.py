"""The command: from data to report, going on after a kill, and one clear line for what cannot be done."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.data import builders, polydigits

CONFIG = "configs/polydigits.py:quicktest"
SMALL = ("--config.network.name=mlp", "--config.network.mlp.hidden_dims=(16,)", "--config.network.latent_dim=4")
OPTIMISED = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "False"}


def command(workdir, data_dir, *flags, config=CONFIG):
    paths = (f"--workdir={workdir}", f"--config.data.dir={data_dir}")
    return [sys.executable, "-m", "mmvm_jax.main", f"--config={config}", *paths, *SMALL, *flags]


def run(*args, env=None, **kwargs):
    return subprocess.run(command(*args, **kwargs), capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Folder of prepared polydigits with few examples, but more than the largest batch."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polydigits, "NUM_EXAMPLES", {"train": 160, "test": 40})
        builders.prepare(polydigits.Polydigits, "plain", folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """The workdir of one whole run."""
    workdir = tmp_path_factory.mktemp("run") / "quicktest"
    result = run(workdir, data_dir)
    assert result.returncode == 0, result.stderr
    return workdir


def test_every_metric_is_explained(finished):
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| [`")]
    explained = [name for row in rows for name in re.findall(r"`(.*?)`", row)]
    patterns = [
        re.escape(name).replace(r"\.\.\.", ".+").replace("<m>", "[^/]+").replace("<n>", "[^/]+") for name in explained
    ]
    for name in json.loads((finished / "evaluation.json").read_text()):
        assert any(re.fullmatch(pattern, name) for pattern in patterns), name


def test_a_run_writes_everything_that_others_read(finished):
    values = json.loads((finished / "evaluation.json").read_text())
    assert all(isinstance(value, float) and np.isfinite(value) for value in values.values())
    names = ("m0", "m1", "m2")
    pairs = [f"{a}_to_{b}" for a in names for b in names]
    crossed = [f"{a}_to_{b}" for a in names for b in names if a != b]
    metrics = ("accuracy", "average_precision", "auroc")
    probes = ("probe", "probe_shared")
    expected = [f"{probe}/{metric}/{name}" for probe in probes for metric in metrics for name in (*names, "mean")]
    expected += [f"probe_chance/{metric}" for metric in metrics]
    expected += [f"coherence/{pair}" for pair in pairs]
    expected += ["coherence/cross_mean", "coherence/leave_one_out_mean", "coherence/joint"]
    expected += [f"coherence/classifier_accuracy/{name}" for name in (*names, "mean")]
    expected += [f"reconstruction/{q}/{name}" for q in ("log_likelihood", "mse") for name in names]
    expected += [f"imputation/{q}/{pair}" for q in ("log_likelihood", "mse") for pair in crossed]
    expected += [f"imputation/{q}/others_to_{name}" for q in ("log_likelihood", "mse") for name in names]
    scores = ("normalized_mutual_information", "adjusted_rand_index")
    expected += [f"cluster/{score}/{name}" for score in scores for name in (*names, "mean")]
    expected += [f"frechet/classifier/{pair}" for pair in pairs]
    couples = ("m0_m1", "m0_m2", "m1_m2")
    expected += [f"relatedness/{what}/{couple}" for what in ("matched", "unmatched", "auroc") for couple in couples]
    expected += [f"correlation/{couple}" for couple in couples]
    expected += ["divergence/jensen_shannon", "train/examples_per_second", "train/seconds", "train/steps"]
    assert sorted(values) == sorted(expected)
    assert -0.05 < values["divergence/jensen_shannon"] < np.log(3) + 0.05
    assert json.loads((finished / "config.json").read_text())["train"]["steps"] == 2
    lines = [(line["step"], line["split"]) for line in read_metrics(str(finished))]
    assert lines == [(1, "train"), (2, "train"), (2, "test")]
    assert list((finished / "tensorboard").iterdir())


def test_the_report_is_one_file_with_its_pictures_inside(finished):
    page = (finished / "report.html").read_text()
    figures = {path.stem for path in (finished / "figures").iterdir()}
    assert figures == {
        "cross_generation", "coherence", "reconstructions", "unconditional", "latents", "relatedness",
        "learning_curves",
    }  # fmt: skip
    assert page.count("data:image/png;base64,") == len(figures)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_nothing_left_to_do(finished, data_dir):
    before = (finished / "evaluation.json").stat().st_mtime_ns
    result = run(finished, data_dir)
    assert result.returncode == 0 and "Nothing left to do" in result.stderr
    assert (finished / "evaluation.json").stat().st_mtime_ns == before


def test_another_configuration_is_refused_and_named(finished, data_dir):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    result = run(finished, data_dir, "--config.method.beta=2.5")
    assert result.returncode == 2
    assert "-config.method.beta = 0.25, +config.method.beta = 2.5" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_evaluation_alone_gives_the_same_numbers(finished, data_dir):
    before = json.loads((finished / "evaluation.json").read_text())
    assert run(finished, data_dir, "--mode=evaluate").returncode == 0
    assert json.loads((finished / "evaluation.json").read_text()) == before


def _state(workdir):
    with ocp.CheckpointManager(os.path.join(workdir, "checkpoints")) as manager:
        step = manager.latest_step()
        items = ocp.args.Composite(state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore())
        restored = manager.restore(step, args=items)
    return step, restored.state, restored.progress["batches"]


def test_killed_at_random_moments_a_run_ends_in_the_same_bits(tmp_path, data_dir):
    steps = ("--config.train.steps=300", "--config.train.checkpoint_every=25", "--config.train.log_every=5")
    flags = ("--mode=train", "--config.train.batch_size=128", *steps)
    assert run(tmp_path / "whole", data_dir, *flags, env=OPTIMISED).returncode == 0
    waits, kills = random.Random(0), 0
    while kills < 2:
        process = subprocess.Popen(
            command(tmp_path / "killed", data_dir, *flags), stderr=subprocess.DEVNULL, env=OPTIMISED
        )
        known = _latest(tmp_path / "killed")
        while process.poll() is None and _latest(tmp_path / "killed") == known:
            time.sleep(0.02)
        time.sleep(waits.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
    assert kills >= 1
    assert run(tmp_path / "killed", data_dir, *flags, env=OPTIMISED).returncode == 0
    whole, killed = _state(tmp_path / "whole"), _state(tmp_path / "killed")
    assert whole[0] == killed[0] == 300
    assert whole[2] == killed[2]
    jax.tree.map(np.testing.assert_array_equal, whole[1], killed[1])
    assert read_metrics(str(tmp_path / "whole")) == read_metrics(str(tmp_path / "killed"))


def _latest(workdir):
    folder = workdir / "checkpoints"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.exists() else 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--config.method.betta=1",), r"no field 'betta'. Did you mean \"beta\""),
        (("--config.method.beta=much",), "config.method.beta=much"),
        (("--config.method.name=mmwm",), "config.method.name is 'mmwm'; allowed: crmvae, independent"),
        (("--config.train.batch_size=6",), "config.train.batch_size is 6; allowed: .* of the 4 devices"),
        (("--workdir=/dev/null/run",), "--workdir=/dev/null/run cannot be written"),
        (("--mode=eval",), "--mode=eval"),
        (("train",), "'train' is not a flag"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(tmp_path, data_dir, flags, message):
    """One of a kind; test_bad_config.py has the values of every field."""
    result = run(tmp_path / "run", data_dir, *flags)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_missing_configuration_file_is_named(tmp_path, data_dir):
    result = run(tmp_path / "run", data_dir, config="configs/nothing.py")
    assert result.returncode == 2 and "--config=configs/nothing.py cannot be read" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_evaluation_without_a_checkpoint(tmp_path, data_dir):
    result = run(tmp_path / "run", data_dir, "--mode=evaluate")
    assert result.returncode == 2 and "no checkpoint" in result.stderr
