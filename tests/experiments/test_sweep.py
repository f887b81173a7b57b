"""The sweep: what it runs, how it summarises, and that it neither repeats nor loses a run."""

import collections
import csv
import json
import pathlib
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.config import base, quick
from mmvm_jax.data import load_dataset
from mmvm_jax.data.description import Description, to_text
from mmvm_jax.errors import InUse, UserError
from mmvm_jax.evaluation import METRICS
from mmvm_jax.experiments import sweep
from mmvm_jax.objectives.method import variants
from mmvm_jax.report import comparison
from mmvm_jax.report.comparison import Result, Summary, objectives, pareto_front, summarise, trade_off
from mmvm_jax.types import Modality

CELLS = {"reconstruction/mse/mean": 0.5, "coherence/cross_mean": 0.25, "probe/accuracy/mean": 0.75, "objective": -2.0}


def _results():
    for method in ("mmvm", "poe"):
        for beta in (1.0, 0.25):
            for seed in (0, 1, 2):
                shift = 0.1 * seed + beta
                yield Result(method, beta, seed, {name: value + shift for name, value in CELLS.items()})


def test_the_summary_is_mean_and_standard_error_over_seeds():
    summaries = summarise(list(_results()))
    assert [(s.method, s.beta, s.num_seeds) for s in summaries] == [
        ("mmvm", 0.25, 3), ("mmvm", 1.0, 3), ("poe", 0.25, 3), ("poe", 1.0, 3),
    ]  # fmt: skip
    mean, error = summaries[1].cells["cross coherence"]
    values = np.array([1.25, 1.35, 1.45])
    np.testing.assert_allclose((mean, error), (values.mean(), values.std(ddof=1) / np.sqrt(3)))


def test_one_seed_has_no_error_and_a_missing_number_no_cell():
    (summary,) = summarise([Result("mmvm", 1.0, 0, {"objective": 3.0})])
    assert list(summary.cells) == ["objective"]
    assert summary.cells["objective"][0] == 3.0 and np.isnan(summary.cells["objective"][1])


def test_the_figures_hold_every_method_and_beta():
    summaries = summarise(list(_results()))
    figure = trade_off(summaries, ["probe accuracy", "cross coherence"])
    for axis in figure.axes:
        named = [points for points in axis.collections if points.get_label() in ("mmvm", "poe")]
        assert [len(points.get_offsets()) for points in named] == [2, 2]
    axis = objectives(summaries, -1.0).axes[0]
    assert axis.get_legend_handles_labels()[1] == ["autoencoder", "mmvm", "poe"]
    plt.close("all")


def test_the_pareto_front_has_what_nobody_beats():
    points = {"a": (0.1, 0.5), "b": (0.2, 0.7), "c": (0.2, 0.6), "d": (0.3, 0.7), "e": (0.05, 0.5), "f": (0.05, 0.5)}
    cells = lambda error, score: {"reconstruction error": (error, 0.0), "joint coherence": (score, 0.0)}
    summaries = [Summary(name, 1.0, 1, cells(*point)) for name, point in points.items()]
    summaries.append(Summary("without score", 1.0, 1, {"reconstruction error": (0.0, 0.0)}))
    assert [summary.method for summary in pareto_front(summaries, "joint coherence")] == ["e", "f", "b"]


@pytest.mark.parametrize("several", [False, True])
def test_of_several_labels_the_average_precision_is_drawn(several):
    values = {"reconstruction/mse/mean": 1.0, "probe/accuracy/mean": 0.9, "probe/average_precision/mean": 0.4}
    summaries = summarise([Result("poe", 1.0, 0, values)])
    columns = list(summaries[0].cells)
    ((name, figure),) = comparison._draw(summaries, columns, None, comparison._scores(columns, several))
    expected = "probe average precision" if several else "probe accuracy"
    assert name == "trade_off" and figure.axes[0].get_ylabel() == expected


def test_no_two_methods_look_alike():
    summaries = [Summary(method, 1.0, 1, {"objective": (0.0, 0.0)}) for method in variants()]
    lines = [bar.lines[0] for bar in objectives(summaries, None).axes[0].containers]
    looks = {(line.get_color(), line.get_markerfacecolor(), line.get_marker(), line.get_linestyle()) for line in lines}
    solid = [line for line in lines if line.get_linestyle() == "-"]
    assert len(looks) == len(lines) == len(variants()) > len({line.get_color() for line in lines}) == len(solid)
    plt.close("all")


def _config(folder):
    """A few steps on a few numbers."""
    generator = np.random.default_rng(0)
    arrays = {name: generator.normal(size=(60, 4)) for name in ("a", "b")}
    np.savez(folder / "data.npz", **arrays, labels=np.arange(60) % 2)
    config = quick(base())
    config.data.update({"name": "own_data", "path": str(folder / "data.npz"), "dir": str(folder / "data")})
    config.network.update({"name": "mlp", "latent_dim": 2})
    config.network.mlp.hidden_dims = (8,)
    config.train.update({"steps": 2, "checkpoint_every": 2, "log_every": 1, "batch_size": 8})
    config.evaluation.batch_size = 8
    return config


@pytest.fixture
def finished(monkeypatch):
    """Runs that end at once, their order recorded; those in ``broken`` fail."""
    order, broken = [], {}

    def run(config, workdir, mode, command):
        order.append((config.method.name, config.method.beta, config.seed))
        pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
        if order[-1] in broken:
            raise broken[order[-1]]
        values = {"reconstruction/mse/a": 0.25, "reconstruction/mse/b": 0.75, "probe/accuracy/mean": 0.5}
        values["coherence/cross_mean"] = 0.1
        (pathlib.Path(workdir) / "figures").mkdir(exist_ok=True)
        (pathlib.Path(workdir) / "figures" / "cross_generation.png").write_bytes(b"PNG")
        (pathlib.Path(workdir) / "evaluation.json").write_text(json.dumps(values))
        modalities = tuple(Modality(name, (4,), "vector", "normal") for name in ("a", "b"))
        description = to_text(Description(modalities, {}, {}, {}, (), ""))
        (pathlib.Path(workdir) / "data.json").write_text(description)
        line = {"step": 2, "split": "train", "loss": 10.0 * config.method.beta + 1.0}
        (pathlib.Path(workdir) / "metrics.jsonl").write_text(json.dumps(line) + "\n")

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sweep, "load_dataset", lambda *arguments: None)
    monkeypatch.setattr(sweep, "_check_room", lambda *arguments: None)
    return order, broken


def test_all_runs_and_the_autoencoder(tmp_path, finished):
    sweep.sweep(base(), str(tmp_path), ["mmvm", "mopoe"], [0.5, 2.0], [0, 1], "the command")
    expected = [(method, beta, seed) for method in ("mmvm", "joint") for beta in (0.5, 2.0) for seed in (0, 1)]
    assert finished[0] == [*expected, ("independent", 0.0, 0)]
    page = (tmp_path / "report.html").read_text()
    assert "the command" in page and "mopoe" in page and "0.5" in page and ">-21<" in page
    expected = {f"{name}.{extension}" for name in ("trade_off", "objective") for extension in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    assert page.count("the other modalities given them") == 2  # a picture per method
    heading, first, *_ = (tmp_path / "summary.csv").read_text().splitlines()
    assert heading.startswith("method,beta,seeds,reconstruction error,reconstruction error error,probe accuracy,")
    assert first.startswith("mmvm,0.5,2,0.5,0.0,0.5,0.0,") and "Pareto fronts" in page
    lines = (tmp_path / "sweep.csv").read_text().splitlines()
    assert "mopoe,2.0,1,reconstruction/mse,b,,0.75" in lines and "mmvm,0.5,0,objective,,,-6.0" in lines
    assert len(lines) == 1 + 8 * 6  # the autoencoder's apart


def test_a_run_that_fails_is_reported_and_stops_no_other(tmp_path, finished):
    order, broken = finished
    broken["mmvm", 1.0, 0] = UserError("config.train.batch_size is <8>")
    broken["mmvm", 1.0, 1] = ZeroDivisionError()
    sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0, 1, 2], "")
    assert len(order) == 4
    page = (tmp_path / "report.html").read_text()
    assert "config.train.batch_size is &lt;8&gt;" in page and "ZeroDivisionError" in page
    assert "Traceback" in (tmp_path / "mmvm" / "beta_1" / "seed_1" / "failure.txt").read_text()


def test_what_failed_before_and_works_now_is_no_failure(tmp_path, finished):
    broken = finished[1]
    broken["mmvm", 1.0, 0] = ZeroDivisionError()
    sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0, 1], "")
    failure = tmp_path / "mmvm" / "beta_1" / "seed_0" / "failure.txt"
    assert failure.exists()
    broken.clear()
    sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0, 1], "")
    assert not failure.exists()


def test_among_several_processes_an_error_of_one_ends_the_sweep(tmp_path, finished, monkeypatch):
    """The others would wait for it; what all of them have, such as a loss that is not finite, it survives."""
    finished[1].update({("mmvm", 1.0, 0): UserError("not finite"), ("mmvm", 1.0, 1): OSError("no space left")})
    monkeypatch.setattr(sweep.processes, "num_processes", lambda: 2)
    monkeypatch.setattr(sweep.processes, "from_first", lambda function, *arguments: function(*arguments))
    with pytest.raises(OSError, match="no space left"):
        sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0, 1, 2], "")
    assert len(finished[0]) == 2


def test_results_made_elsewhere_are_shown_and_not_repeated(tmp_path, finished, monkeypatch):
    monkeypatch.setitem(METRICS, "mine", None)
    elsewhere = [
        Result("mmvm", 1.0, 0, {"coherence/cross_mean": 0.625, "mine/score": 7.5}),
        Result("other software", 2.0, 0, {"coherence/cross_mean": 0.875, "unknown": 1.0}),
    ]
    sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0, 1], "", elsewhere)
    assert finished[0] == [("mmvm", 1.0, 1), ("independent", 0.0, 0)]
    mine, other = _summary(tmp_path)
    assert "mine/score" in mine and "unknown" not in mine
    assert (mine["seeds"], mine["cross coherence"], mine["mine/score"]) == ("2", "0.3625", "7.5")
    assert (other["method"], other["cross coherence"]) == ("other software", "0.875")
    assert "mmvm,1.0,0,mine/score,,,7.5" in (tmp_path / "sweep.csv").read_text().splitlines()


def _summary(folder):
    return list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))


def test_processes_share_the_runs(tmp_path, finished, monkeypatch):
    """Those that another works on are tried again, until all that are left are being worked on."""
    run, tries = sweep.run, collections.Counter()

    def busy(config, *rest):
        tries[config.seed] += config.method.name == "mmvm"
        if config.seed == 1 or (config.seed == 0 and tries[0] == 1):
            raise InUse("another run is working there")
        run(config, *rest)

    monkeypatch.setattr(sweep, "run", busy)
    sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0, 1, 2], "")
    assert tries == {0: 2, 1: 3, 2: 1}
    (summary,) = _summary(tmp_path)
    assert summary["seeds"] == "2" and "Failed runs" not in (tmp_path / "report.html").read_text()


def test_data_that_are_absent_are_reported_once(tmp_path, finished, monkeypatch):
    def absent(*arguments):
        raise UserError("no files")

    monkeypatch.setattr(sweep, "load_dataset", absent)
    with pytest.raises(UserError, match="no files"):
        sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0, 1], "")
    assert not finished[0]


def test_checkpoints_that_do_not_fit_are_noticed_before_any_run(tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=2_000_000)
    monkeypatch.setattr(sweep.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(sweep, "run", lambda *arguments: pytest.fail("a run began"))
    with pytest.raises(UserError, match=r"the checkpoints of 3 runs need about 0.0 GB.*--nokeep_checkpoints"):
        sweep.sweep(_config(tmp_path), str(tmp_path), ["mmvm"], [0.5, 1.0], [0], "")
    with pytest.raises(pytest.fail.Exception, match="a run began"):
        sweep.sweep(_config(tmp_path), str(tmp_path), ["mmvm"], [0.5, 1.0], [0], "", keep_checkpoints=False)


def test_checkpoints_are_deleted_if_asked_for(tmp_path, finished, monkeypatch):
    run = sweep.run

    def saving(config, workdir, *rest):
        (pathlib.Path(workdir) / "checkpoints" / "2").mkdir(parents=True)
        run(config, workdir, *rest)

    monkeypatch.setattr(sweep, "run", saving)
    sweep.sweep(base(), str(tmp_path / "kept"), ["mmvm"], [1.0], [0], "")
    sweep.sweep(base(), str(tmp_path / "not"), ["mmvm"], [1.0], [0], "", keep_checkpoints=False)
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("checkpoints")] == ["kept", "kept"]


def test_a_run_does_not_depend_on_what_else_the_sweep_runs(tmp_path):
    config = base()
    config.sweep.betas = (1.0, 7.0)
    configured = sweep._configure(config, "poe", 1.0, 3)
    assert "sweep" not in configured and config.sweep.betas == (1.0, 7.0)


def test_all_runs_failed(tmp_path, finished):
    finished[1].update({("mmvm", 1.0, 0): UserError("no"), ("independent", 0.0, 0): UserError("neither")})
    with pytest.raises(UserError, match="all runs failed; the first: no") as caught:
        sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0], [0], "")
    assert caught.value.exit_code == 1


def test_wrong_requests_are_refused_before_any_run(tmp_path, finished):
    with pytest.raises(UserError, match="--methods is 'pow'; allowed: average,"):
        sweep.sweep(base(), str(tmp_path), ["mmvm", "pow"], [1.0], [0], "")
    with pytest.raises(UserError, match="config.method.beta is -1"):
        sweep.sweep(base(), str(tmp_path), ["mmvm"], [1.0, -1.0], [0], "")
    assert not finished[0]


def test_real_runs_go_on_where_they_were(tmp_path):
    config = _config(tmp_path)
    sweep.sweep(config, str(tmp_path), ["mmvm"], [1.0], [0], "", keep_checkpoints=False)
    first = (tmp_path / "mmvm" / "beta_1" / "seed_0" / "evaluation.json").stat().st_mtime_ns
    sweep.sweep(config, str(tmp_path), ["mmvm"], [1.0], [0], "")
    assert (tmp_path / "mmvm" / "beta_1" / "seed_0" / "evaluation.json").stat().st_mtime_ns == first
    page = (tmp_path / "report.html").read_text()
    assert page.count("<td>mmvm</td>") == 1 and "Failed runs" not in page


def test_a_method_that_cannot_be_trained_together_stops_no_other(tmp_path, finished, monkeypatch, caplog):
    def refuse(runs, *rest):
        raise UserError("one modality is too few")

    monkeypatch.setattr(sweep, "load_dataset", load_dataset)
    monkeypatch.setattr(sweep.side_by_side, "is_faster", lambda config: True)
    monkeypatch.setattr(sweep.side_by_side, "train_replicas", refuse)
    sweep.sweep(_config(tmp_path), str(tmp_path), ["meme"], [0.5, 1.0], [0], "")
    assert len(finished[0]) == 3 and "sweep: meme cannot be trained side by side (one modality" in caplog.text


def test_runs_of_a_method_are_trained_together_where_that_pays(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sweep.side_by_side, "is_faster", lambda config: True)
    config = _config(tmp_path)
    runs, data = sweep._plan(config, ["mmvm"], [0.5, 1.0], [0]), load_dataset(config.data)
    with caplog.at_level("INFO", logger="mmvm_jax"):
        sweep._train_side_by_side(runs, data, str(tmp_path))
    assert "2 runs at once: 2/2 steps" in caplog.text and "cannot be trained" not in caplog.text
    for beta in ("0.5", "1"):
        lines = read_metrics(str(tmp_path / "mmvm" / f"beta_{beta}" / "seed_0"))
        assert [(line["step"], line["split"]) for line in lines] == [(1, "train"), (2, "train"), (2, "test")]
