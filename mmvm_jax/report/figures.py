"""The figures of a report. Each function draws one figure and returns it."""

import functools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from mmvm_jax.data.batches import some_rows
from mmvm_jax.report.cells import Row, draw_rows

# Okabe and Ito's colours and two more: colour-blind readers can distinguish ten classes.
CLASS_COLORS = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999", "#6b3d00",
)  # fmt: skip
_MARKERS = "os^Dv"
_LEGEND_CLASSES = 20  # a legend with more names is not readable


def learning_curves(history: list[dict]) -> Figure:
    """Draw loss, log-likelihoods and divergences against the step: lines for training, dots for held-out examples."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    training = [line for line in history if line["split"] == "train"]
    held_out = [line for line in history if line["split"] != "train"]
    panels = {"loss": ["loss"], "log-likelihood": _names(history, "log_likelihood/")}
    panels["divergence"] = _names(history, "divergence/")
    for axis, (title, names) in zip(axes, panels.items()):
        for place, name in enumerate(names):
            color, style = CLASS_COLORS[place % len(CLASS_COLORS)], "-" if place < len(CLASS_COLORS) else "--"
            axis.plot(*_series(training, name), style, color=color, label=name.rpartition("/")[2])
            axis.plot(*_series(held_out, name), "o", color=color, markersize=3)
        axis.set(title=title, xlabel="step", ylabel="nats per example")
        if len(names) > 1:
            axis.legend(frameon=False)
    return figure


def _series(lines, name):
    """Return (steps, values) of one metric; values that are not finite are NaN."""
    return [line["step"] for line in lines], [np.nan if line.get(name) is None else line[name] for line in lines]


def _names(history, prefix):
    return [name for name in history[0] if name.startswith(prefix)] if history else []


def reconstructions(modalities, examples, vocabularies) -> Figure:
    """Draw the test examples of every modality above their reconstructions."""
    rows = []
    for modality in modalities:
        name, present = modality.name, examples.present[modality.name]
        rows.append(Row(name, modality, examples.inputs[name], is_given=True, shown=present))
        rows.append(Row("reconstructed", modality, examples.generated[name][name], shown=present))
    return draw_rows(rows, vocabularies)


def cross_generation(modalities, examples, vocabularies) -> Figure:
    """Draw every modality generated from every other: one block of rows per source, its real examples on top."""
    rows = []
    for source in modalities:
        present = examples.present[source.name]
        rows.append(Row(f"given {source.name}", source, examples.inputs[source.name], is_given=True, shown=present))
        targets = [target for target in modalities if target != source]
        rows += [Row(f"→ {t.name}", t, examples.generated[source.name][t.name], shown=present) for t in targets]
    return draw_rows(rows, vocabularies)


def unconditional(modalities, samples, vocabularies) -> Figure:
    """Draw samples from the prior: one sample per column, decoded to every modality."""
    return draw_rows([Row(m.name, m, samples[m.name]) for m in modalities], vocabularies)


@threadpool_limits.wrap(limits=1)  # more threads wait for each other and make t-SNE tens of times slower
def latents(names, evaluation, class_names, count: int, seed: int) -> Figure:
    """Draw posterior means by class, one column per modality: directly up to two dimensions, else by PCA and t-SNE."""
    means, present, labels = evaluation.test_means, evaluation.test_present, evaluation.test_labels
    maps = {"latent": _first_two} if means.shape[-1] <= 2 else _maps(seed)
    size = (3.2 * len(names) + 1.0, 3.2 * len(maps))
    figure, axes = plt.subplots(len(maps), len(names), figsize=size, squeeze=False, layout="constrained")
    for column, (name, mean, observed) in enumerate(zip(names, means, present)):
        rows = np.flatnonzero(observed)
        rows = rows[some_rows(len(rows), count)]
        classes = labels[rows] if labels.ndim == 1 else np.zeros(len(rows), int)
        for axis, (title, function) in zip(axes[:, column], maps.items()):
            _scatter(axis, function(mean[rows]), classes, class_names)
            axis.set(title=f"{name}, {title}", xticks=[], yticks=[])
    handles, shown = axes[0, 0].get_legend_handles_labels()
    if 1 < len(shown) <= _LEGEND_CLASSES:
        figure.legend(handles, shown, loc="outside right center", frameon=False, markerscale=2)
    return figure


def _scatter(axis, points, classes, class_names) -> None:
    for value in np.unique(classes).astype(int):
        color, marker = CLASS_COLORS[value % len(CLASS_COLORS)], _MARKERS[value // len(CLASS_COLORS) % len(_MARKERS)]
        label = class_names[value] if 0 <= value < len(class_names) else str(value)
        axis.scatter(*points[classes == value].T, s=7, color=color, marker=marker, label=label, linewidths=0)


def _first_two(features):
    """Pad latents of one or two dimensions: [N, 1 or 2] -> [N, 2]."""
    return np.pad(features, ((0, 0), (0, 2 - features.shape[1])))


def _maps(seed):
    """Return {name: function [N, D] -> [N, 2]}; the perplexity of t-SNE is lower for few examples."""
    makers = {
        "PCA": lambda count: PCA(2),
        "t-SNE": lambda count: TSNE(perplexity=min(30.0, count / 4), init="pca", random_state=seed),
    }
    return {name: functools.partial(_map, make) for name, make in makers.items()}


def _map(make, features):
    """Apply a map; if all features are equal, with which t-SNE crashes, return the origin for all."""
    if not np.ptp(features, axis=0).any():
        return np.zeros((len(features), 2))
    return make(len(features)).fit_transform(features)


def coherence_table(names, values: dict[str, float]) -> Figure:
    """Draw the coherence table as a heat map; the last row is the score of the classifiers on real examples."""
    score = "accuracy" if "coherence/classifier_accuracy/mean" in values else "average_precision"
    table = [[values.get(f"coherence/{s}_to_{t}", np.nan) for t in names] for s in names]
    table = np.array([*table, [values.get(f"coherence/classifier_{score}/{t}", np.nan) for t in names]])
    figure, axis = plt.subplots(figsize=(2.4 + 0.9 * len(names), 1.2 + 0.6 * len(names)), layout="constrained")
    image = axis.imshow(table, vmin=0.0, vmax=1.0, cmap="cividis")
    for (row, column), value in np.ndenumerate(table):
        color = "white" if value < 0.6 else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    axis.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
    axis.set_yticks(range(len(names) + 1), [*(f"from {name}" for name in names), "real examples"])
    axis.axhline(len(names) - 0.5, color="white", linewidth=3)
    axis.set_xlabel("generated modality")
    figure.colorbar(image, label=score.replace("_", " "))
    return figure


def relatedness(pairs, class_names) -> Figure:
    """Draw one row per pair of modalities: distances of examples, distances between classes, and a tree of classes."""
    figure, axes = plt.subplots(len(pairs), 3, figsize=(11, 3.0 * len(pairs)), squeeze=False, layout="constrained")
    for (histogram, matrix, tree), ((a, b), pair) in zip(axes, pairs.items()):
        bins = np.linspace(0.0, max(pair.matched.max(), pair.unmatched.max()), 41)
        histogram.hist(pair.matched, bins, color="#0072b2", alpha=0.7, label="same example")
        histogram.hist(pair.unmatched, bins, color="#e69f00", alpha=0.7, label="different examples")
        histogram.set(title=f"{a} and {b}", xlabel="squared 2-Wasserstein distance", ylabel="pairs")
        histogram.legend(frameon=False)
        if pair.class_distances is None:
            matrix.set_axis_off()
            tree.set_axis_off()
            continue
        shown = [class_names[int(c)] if int(c) < len(class_names) else str(c) for c in pair.classes]
        figure.colorbar(matrix.imshow(pair.class_distances, cmap="cividis_r"), label="mean distance")
        matrix.set(xlabel=f"class of {b}", ylabel=f"class of {a}")
        if len(shown) <= _LEGEND_CLASSES:
            matrix.set_xticks(range(len(shown)), shown, rotation=90 if max(map(len, shown)) > 2 else 0)
            matrix.set_yticks(range(len(shown)), shown)
        dendrogram(pair.tree, labels=shown, ax=tree, color_threshold=0, above_threshold_color="#444444")
        tree.set(title="classes, joined by average distance", ylabel="distance")
    return figure
