"""The figures of a report. Each function draws one figure and returns it."""

import functools
import itertools

import numpy as np
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from mmvm_jax.data.batches import some_rows
from mmvm_jax.report.cells import Row, draw_rows
from mmvm_jax.report.style import styled, subplots

# Okabe and Ito's colours and two more: colour-blind readers can distinguish ten classes.
CLASS_COLORS = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999", "#6b3d00",
)  # fmt: skip
_MARKERS = "os^Dv"
_LEGEND_NAMES = 20  # a legend with more names is not readable
# Modalities, and pairs of modalities, that a figure shows: its size and the time to draw it must not grow with theirs.
MOST_ROWS = 20
MOST_SOURCES = 6
MOST_MAPS = 10
MOST_PAIRS = 6
_MOST_NUMBERS = 40  # modalities of a table with numbers in its cells
_TABLE_SIDE = 18.0  # inches, at most


def some(items, most: int) -> list:
    """Return ``most`` of the items, at even distances; all of them if there are no more."""
    items = list(items)
    return items if len(items) <= most else [items[place] for place in np.linspace(0, len(items) - 1, most).astype(int)]


@styled
def learning_curves(history: list[dict]) -> Figure:
    """Draw loss, log-likelihoods and divergences against the step.

    Lines are training examples, dots evaluated examples, and crosses the examples that early stopping monitors.
    """
    figure, axes = subplots(1, 3, size=(11, 3))
    training = [line for line in history if line["split"] == "train"]
    monitored = [line for line in history if line["split"] == "monitored"]
    held_out = [line for line in history if line["split"] not in ("train", "monitored")]
    panels = {"loss": ["loss"], "log-likelihood": _names(history, "log_likelihood/")}
    panels["divergence"] = _names(history, "divergence/")
    for axis, (title, names) in zip(axes, panels.items()):
        for place, name in enumerate(names):
            color, style = CLASS_COLORS[place % len(CLASS_COLORS)], "-" if place < len(CLASS_COLORS) else "--"
            axis.plot(*_series(training, name), style, color=color, label=name.rpartition("/")[2])
            axis.plot(*_series(held_out, name), "o", color=color, markersize=3)
            axis.plot(*_series(monitored, name), "x", color=color, markersize=3)
        axis.set(title=title, xlabel="step", ylabel="nats per example")
        if 1 < len(names) <= _LEGEND_NAMES:
            axis.legend(frameon=False)
    return figure


def _series(lines, name):
    """Return (steps, values) of one metric; values that are not finite are NaN."""
    return [line["step"] for line in lines], [np.nan if line.get(name) is None else line[name] for line in lines]


def _names(history, prefix):
    return [name for name in history[0] if name.startswith(prefix)] if history else []


@styled
def reconstructions(modalities, examples, vocabularies) -> Figure:
    """Draw the test examples of every modality above their reconstructions."""
    rows = []
    for modality in some(modalities, MOST_ROWS):
        name, present = modality.name, examples.present[modality.name]
        rows.append(Row(name, modality, examples.inputs[name], is_given=True, shown=present))
        rows.append(Row("reconstructed", modality, examples.generated[name][name], shown=present))
    return draw_rows(rows, vocabularies)


@styled
def cross_generation(modalities, examples, vocabularies) -> Figure:
    """Draw every modality generated from every other: one block of rows per source, its real examples on top."""
    rows, modalities = [], some(modalities, MOST_SOURCES)
    for source in modalities:
        present = examples.present[source.name]
        rows.append(Row(f"given {source.name}", source, examples.inputs[source.name], is_given=True, shown=present))
        targets = [target for target in modalities if target != source]
        rows += [Row(f"→ {t.name}", t, examples.generated[source.name][t.name], shown=present) for t in targets]
    return draw_rows(rows, vocabularies)


@styled
def unconditional(modalities, samples, vocabularies) -> Figure:
    """Draw samples from the prior: one sample per column, decoded to every modality."""
    return draw_rows([Row(m.name, m, samples[m.name]) for m in some(modalities, MOST_ROWS)], vocabularies)


@threadpool_limits.wrap(limits=1)  # more threads wait for each other and make t-SNE tens of times slower
@styled
def latents(names, evaluation, class_names, count: int, seed: int) -> Figure:
    """Draw posterior means by class, one column per modality: directly up to two dimensions, else by PCA and t-SNE."""
    means, present, labels = evaluation.test_means, evaluation.test_present, evaluation.test_labels
    maps = {"latent": _first_two} if means.shape[-1] <= 2 else _maps(seed)
    shown = some(zip(names, means, present), MOST_MAPS)
    size = (3.2 * len(shown) + 1.0, 3.2 * len(maps))
    figure, axes = subplots(len(maps), len(shown), size=size, squeeze=False)
    for column, (name, mean, observed) in enumerate(shown):
        rows = np.flatnonzero(observed)
        rows = rows[some_rows(len(rows), count)]
        classes = labels[rows] if labels.ndim == 1 else np.zeros(len(rows), int)
        for axis, (title, function) in zip(axes[:, column], maps.items()):
            _scatter(axis, function(mean[rows]), classes, class_names)
            axis.set(title=f"{name}, {title}", xticks=[], yticks=[])
    handles, classes = axes[0, 0].get_legend_handles_labels()
    if 1 < len(classes) <= _LEGEND_NAMES:
        figure.legend(handles, classes, loc="outside right center", frameon=False, markerscale=2)
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


@styled
def coherence_table(names, values: dict[str, float]) -> Figure:
    """Draw the coherence table as a heat map; the last row is the score of the classifiers on real examples."""
    score = "accuracy" if "coherence/classifier_accuracy/mean" in values else "average_precision"
    table = [[values.get(f"coherence/{s}_to_{t}", np.nan) for t in names] for s in names]
    table = np.array([*table, [values.get(f"coherence/classifier_{score}/{t}", np.nan) for t in names]])
    rows = [*(f"from {name}" for name in names), "real examples"]
    figure, axis = _heat_map(table, rows, names, score.replace("_", " "))
    axis.axhline(len(names) - 0.5, color="white", linewidth=3)
    axis.set_xlabel("generated modality")
    return figure


@styled
def relatedness_table(names, values: dict[str, float]) -> Figure:
    """Draw how well distances tell posteriors of the same example from those of different examples, for all pairs."""
    table = np.full((len(names), len(names)), np.nan)
    for row, column in itertools.combinations(range(len(names)), 2):
        auroc = values.get(f"relatedness/auroc/{names[row]}_{names[column]}", np.nan)
        table[row, column] = table[column, row] = auroc
    return _heat_map(table, names, names, "AUROC of same against different examples")[0]


def _heat_map(table: np.ndarray, rows, columns, label: str):
    """Draw a table of scores between 0 and 1, with their numbers unless there are too many; return figure and axis."""
    width, height = (min(_TABLE_SIDE, 2.4 + side * len(columns)) for side in (0.9, 0.6))
    figure, axis = subplots(size=(width, height))
    image = axis.imshow(table, vmin=0.0, vmax=1.0, cmap="cividis", aspect="auto")
    size = 9 if len(columns) <= MOST_ROWS else 6
    for row, column in np.argwhere(np.isfinite(table)) if len(columns) <= _MOST_NUMBERS else ():
        color = "white" if table[row, column] < 0.6 else "black"
        axis.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", color=color, fontsize=size)
    step = -(-len(columns) // _MOST_NUMBERS)  # of the names beside the table
    axis.set_xticks(range(0, len(columns), step), columns[::step], rotation=90 if len(columns) > MOST_MAPS else 30)
    axis.set_yticks(range(0, len(rows), step), rows[::step])
    figure.colorbar(image, label=label)
    return figure, axis


@styled
def relatedness(pairs, class_names) -> Figure:
    """Draw one row per pair of modalities: distances of examples, distances between classes, and a tree of classes.

    Of many pairs, some are drawn that are evenly spread from the least to the most related.
    """
    order = sorted(pairs, key=lambda pair: np.mean(pairs[pair].matched) / max(np.mean(pairs[pair].unmatched), 1e-30))
    pairs = {pair: pairs[pair] for pair in (some(order, MOST_PAIRS) if len(pairs) > MOST_PAIRS else pairs)}
    figure, axes = subplots(len(pairs), 3, size=(11, 3.0 * len(pairs)), squeeze=False)
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
        if len(shown) <= _LEGEND_NAMES:
            matrix.set_xticks(range(len(shown)), shown, rotation=90 if max(map(len, shown)) > 2 else 0)
            matrix.set_yticks(range(len(shown)), shown)
        dendrogram(pair.tree, labels=shown, ax=tree, color_threshold=0, above_threshold_color="#444444")
        tree.set(title="classes, joined by average distance", ylabel="distance")
    return figure
