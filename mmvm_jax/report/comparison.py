"""The report of a sweep: it compares methods over betas and seeds."""

import csv
import glob
import io
import os
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mmvm_jax.artifacts import run_folder
from mmvm_jax.evaluation import METRICS
from mmvm_jax.report.figures import CLASS_COLORS
from mmvm_jax.report.page import read_picture, write_page
from mmvm_jax.report.style import styled, subplots
from mmvm_jax.runtime.files import write_text

OBJECTIVE = "objective"
RECONSTRUCTION = "reconstruction error"
COLUMNS = {
    RECONSTRUCTION: "reconstruction/mse/mean",
    "probe accuracy": "probe/accuracy/mean",
    "probe average precision": "probe/average_precision/mean",
    "cross coherence": "coherence/cross_mean",
    "leave-one-out coherence": "coherence/leave_one_out_mean",
    "joint coherence": "coherence/joint",
    "Jensen-Shannon": "divergence/jensen_shannon",
    OBJECTIVE: "objective",
    "examples/s": "train/examples_per_second",
}
_SEVERAL_LABELS = "coherence/classifier_average_precision/mean"  # exists only for data with several labels
_CHANCE = "probe_chance/{}"
SUMMARY_FILE = "summary.csv"
_SAMPLES = "cross_generation.png"  # among the figures of a run
_MARKERS = "os^Dv<>PX*hp"
_CAPTIONS = {
    "trade_off": "Reconstruction error against each score. Mean over seeds; bars are standard errors. A line joins the "
    "points of a method, from its smallest beta (small marker) to its largest. Up and to the left is better.",
    "objective": "The objective that each method maximises, at the end of training, against beta. The dashed line is "
    "the plain autoencoder (beta 0). No evidence lower bound of the same networks can be expected to exceed it. If a "
    "method has another objective (importance weighting, a sum of several bounds), compare it only with itself.",
}


class Result(NamedTuple):
    """The metrics of one finished run."""

    method: str
    beta: float
    seed: int
    values: dict[str, float]


class Summary(NamedTuple):
    """The runs of one method and beta; the standard error is NaN for a single seed."""

    method: str
    beta: float
    num_seeds: int
    cells: dict[str, tuple[float, float]]  # {column: (mean, standard error over seeds)}


def summarise(results: list[Result]) -> list[Summary]:
    """Return means and standard errors over seeds, sorted by first appearance of the method, then by beta."""
    summaries = []
    for method in dict.fromkeys(result.method for result in results):
        mine = [result for result in results if result.method == method]
        for beta in sorted({result.beta for result in mine}):
            runs = [result.values for result in mine if result.beta == beta]
            cells = {}
            for column, name in (COLUMNS | _own_columns(results)).items():
                numbers = [values[name] for values in runs if name in values]
                if numbers:
                    cells[column] = _mean_and_error(numbers)
            summaries.append(Summary(method, beta, len(runs), cells))
    return summaries


def _own_columns(results: list[Result]) -> dict[str, str]:
    """Return the columns of the metrics that a user added."""
    names = (name for result in results for name in result.values if name.split("/")[0] in METRICS)
    return {name: name for name in sorted(set(names))}


def _mean_and_error(numbers: list[float]) -> tuple[float, float]:
    error = np.std(numbers, ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else np.nan
    return float(np.mean(numbers)), float(error)


def write_comparison(
    config, results: list[Result], bound: float | None, failures: dict[str, str], workdir: str, command: str
) -> str:
    """Write ``figures/*``, ``summary.csv`` and ``report.html`` into the workdir of a sweep; return the page's path.

    Args:
      config: the configuration that all runs share.
      results: metrics of the finished runs, one or more.
      bound: objective of the plain autoencoder, if it was trained.
      failures: {run: error message}.
      workdir: folder of the sweep.
      command: the command that started the sweep.
    """
    summaries = summarise(results)
    known = (*COLUMNS, *_own_columns(results))
    columns = [column for column in known if any(column in summary.cells for summary in summaries)]
    several_labels = any(_SEVERAL_LABELS in result.values for result in results)
    scores = _scores(columns, several_labels)
    chance = _CHANCE.format("average_precision" if several_labels else "accuracy")
    write_text(os.path.join(workdir, SUMMARY_FILE), _as_csv(summaries, columns))
    return write_page(
        "comparison.html.jinja",
        workdir,
        _draw(summaries, columns, bound, scores),
        _CAPTIONS,
        config,
        formats=("png", "pdf"),
        fronts={score: pareto_front(summaries, score) for score in scores},
        samples=list(_samples(summaries, workdir)),
        title=f"Methods compared on {config.data.name}",
        command=command,
        columns=columns,
        chance=next((result.values[chance] for result in results if chance in result.values), None),
        summaries=summaries,
        failures=failures,
    )


def pareto_front(summaries: list[Summary], score: str) -> list[Summary]:
    """Return those that no other beats in both mean reconstruction error and mean score, by ascending error."""
    complete = [summary for summary in summaries if {score, RECONSTRUCTION} <= summary.cells.keys()]
    place = {summary[:2]: (summary.cells[RECONSTRUCTION][0], -summary.cells[score][0]) for summary in complete}
    beats = lambda one, other: (
        place[one[:2]] != place[other[:2]] and all(a <= b for a, b in zip(place[one[:2]], place[other[:2]]))
    )
    front = [one for one in complete if not any(beats(other, one) for other in complete)]
    return sorted(front, key=lambda summary: place[summary[:2]])


def _scores(columns: list[str], several_labels: bool) -> list[str]:
    """Return the scores that are drawn against the reconstruction error."""
    # With several labels per example, always predicting the more frequent value already has a high accuracy.
    probe = "probe average precision" if several_labels else "probe accuracy"
    wanted = (probe, "cross coherence", "leave-one-out coherence", "joint coherence")
    return [score for score in wanted if score in columns and RECONSTRUCTION in columns]


def _samples(summaries: list[Summary], workdir: str):
    """Yield, per method, the translations of a run at the beta of its highest cross coherence."""
    score = "cross coherence"
    for method in dict.fromkeys(summary.method for summary in summaries):
        mine = [summary for summary in summaries if summary.method == method and score in summary.cells]
        if not mine:
            continue
        best = max(mine, key=lambda summary: summary.cells[score][0])
        paths = glob.glob(os.path.join(workdir, run_folder.in_sweep(method, best.beta, "*"), "figures", _SAMPLES))
        if paths:
            caption = f"{method}, beta {best.beta:g}: real examples (bold rows), and the other modalities given them"
            yield read_picture(min(paths), f"{method} at its best beta", caption)


def _as_csv(summaries: list[Summary], columns: list[str]) -> str:
    """Return the table of the page: per column a mean and a standard error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "beta", "seeds", *(name for column in columns for name in (column, f"{column} error"))])
    for summary in summaries:
        cells = [number for column in columns for number in summary.cells.get(column, ("", ""))]
        writer.writerow([summary.method, summary.beta, summary.num_seeds, *cells])
    return text.getvalue()


def _draw(summaries, columns, bound, scores):
    if scores:
        yield "trade_off", trade_off(summaries, scores)
    if OBJECTIVE in columns:
        yield "objective", objectives(summaries, bound)


@styled
def trade_off(summaries: list[Summary], scores: list[str]) -> Figure:
    """Draw the reconstruction error against each score: one marker per method, one point per beta."""
    columns = min(2, len(scores))
    rows = -(-len(scores) // columns)
    size = (5.0 * columns + 1.5, 4.2 * rows)
    figure, axes = subplots(rows, columns, size=size, squeeze=False)
    for unused in axes.flat[len(scores) :]:
        unused.remove()
    for axis, score in zip(axes.flat, scores):
        for style, method, points in _by_method(summaries, (RECONSTRUCTION, score)):
            (x, x_error), (y, y_error) = (np.array([p.cells[c] for p in points]).T for c in (RECONSTRUCTION, score))
            axis.errorbar(x, y, y_error, x_error, color=style["color"], linestyle=style["linestyle"], linewidth=0.8)
            sizes, inside = np.linspace(15, 60, len(x)), style["markerfacecolor"]
            outside = {"marker": style["marker"], "edgecolors": style["color"]}
            axis.scatter(x, y, sizes, facecolors=inside, label=method, zorder=3, **outside)
        axis.set(xlabel=RECONSTRUCTION, ylabel=score)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


@styled
def objectives(summaries: list[Summary], bound: float | None) -> Figure:
    """Draw the objective against beta on a logarithmic axis."""
    figure, axis = subplots(size=(7.5, 4.2))
    for style, method, points in _by_method(summaries, (OBJECTIVE,)):
        y, error = np.array([point.cells[OBJECTIVE] for point in points]).T
        axis.errorbar([p.beta for p in points], y, error, markersize=5, label=method, **style)
    if bound is not None:
        axis.axhline(bound, color="black", linestyle="--", label="autoencoder")
    axis.set(xlabel="beta", ylabel="nats per example")
    betas = sorted({summary.beta for summary in summaries})
    axis.set_xscale("symlog", linthresh=1e-3)
    axis.set_xticks(betas, [f"{beta:g}" for beta in betas])
    axis.minorticks_off()
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _by_method(summaries, columns):
    """Yield (style, method, its summaries that have all columns) for each method."""
    for place, method in enumerate(dict.fromkeys(summary.method for summary in summaries)):
        points = [s for s in summaries if s.method == method and all(column in s.cells for column in columns)]
        if points:
            yield _style(place), method, points


def _style(place: int) -> dict[str, str]:
    """Return the Matplotlib line style of a method. If a colour repeats, markers are hollow and lines dashed."""
    color, again = CLASS_COLORS[place % len(CLASS_COLORS)], place >= len(CLASS_COLORS)
    inside, line = ("white", "--") if again else (color, "-")
    return {
        "color": color, "marker": _MARKERS[place % len(_MARKERS)], "markerfacecolor": inside, "linestyle": line,
    }  # fmt: skip
