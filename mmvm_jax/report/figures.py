"""The figures of a report; each function draws one and returns it."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

# Okabe & Ito's colours, and two more greys, tell ten classes apart for colour-blind readers too.
CLASS_COLORS = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999", "#6b3d00",
)  # fmt: skip
_GAP = 2  # pixels between two images
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110})


def learning_curves(history: list[dict]) -> Figure:
    """Loss, log-likelihoods and divergences against the step."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    steps = [line["step"] for line in history]
    panels = {"loss": ["loss"], "log-likelihood": _names(history, "log_likelihood/")}
    panels["divergence"] = _names(history, "divergence/")
    for axis, (title, names) in zip(axes, panels.items()):
        for name, color in zip(names, CLASS_COLORS):
            values = [np.nan if line.get(name) is None else line[name] for line in history]
            axis.plot(steps, values, color=color, label=name.rpartition("/")[2])
        axis.set(title=f"{title}, training batches", xlabel="step", ylabel="nats per example")
        if len(names) > 1:
            axis.legend(frameon=False)
    return figure


def _names(history, prefix):
    return [name for name in history[0] if name.startswith(prefix)] if history else []


def reconstructions(names, examples) -> Figure:
    """For every modality its test examples above their reconstructions."""
    rows = [(f"{name}", examples.inputs[name]) for name in names]
    rows += [(f"{name}, reconstructed", examples.generated[name][name]) for name in names]
    order = [row for pair in zip(rows[: len(names)], rows[len(names) :]) for row in pair]
    return _image_rows(order)


def cross_generation(names, examples) -> Figure:
    """Every modality generated from every other: one block of rows a source, its real examples on top."""
    rows = []
    for source in names:
        rows.append((f"given {source}", examples.inputs[source]))
        rows += [(f"→ {target}", examples.generated[source][target]) for target in names if target != source]
    return _image_rows(rows, rule_every=len(names))


def _image_rows(rows, rule_every: int = 2) -> Figure:
    """Rows of images, (label, [E, H, W, C]) each, on one canvas; the first of every ``rule_every`` rows in bold."""
    height = max(images.shape[1] for _, images in rows) + _GAP
    width = max(images.shape[2] for _, images in rows) + _GAP
    canvas = np.ones((height * len(rows), width * len(rows[0][1]), 3))
    for row, (_, images) in enumerate(rows):
        for column, image in enumerate(np.clip(images, 0.0, 1.0)):
            top, left = row * height, column * width
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = image  # grey ones broadcast
    size = (1.3 + 0.75 * canvas.shape[1] / width, 0.75 * canvas.shape[0] / width)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    axis.imshow(canvas, interpolation="nearest")
    axis.set_yticks((np.arange(len(rows)) + 0.5) * height - 0.5 * _GAP, [label for label, _ in rows])
    for text in axis.get_yticklabels()[::rule_every]:
        text.set_fontweight("bold")
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def latents(names, means, present, labels, count: int, seed: int) -> Figure:
    """Posterior means by class, one panel a modality: the latent itself at two dimensions, else t-SNE of it."""
    figure, axes = plt.subplots(1, len(names), figsize=(3.3 * len(names) + 0.8, 3.3), squeeze=False, layout="constrained")
    for axis, name, mean, observed in zip(axes[0], names, means, present):
        rows = np.flatnonzero(observed)[:count]
        points, method = _plane(mean[rows], seed)
        classes = labels[rows] if labels.ndim == 1 else np.zeros(len(rows), int)
        for value in np.unique(classes):
            chosen = points[classes == value]
            color = CLASS_COLORS[int(value) % len(CLASS_COLORS)]
            axis.scatter(*chosen.T, s=5, color=color, label=str(value), linewidths=0)
        axis.set(title=f"{name}, {method}", xticks=[], yticks=[])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False, markerscale=3)
    return figure


def _plane(features, seed):
    if features.shape[1] == 2:
        return features, "latent"
    if len(features) < 100:
        return PCA(2).fit_transform(features), "PCA"
    return TSNE(perplexity=30, init="pca", random_state=seed).fit_transform(features), "t-SNE"


def coherence_table(names, values: dict[str, float]) -> Figure:
    """The coherence table as a heat map, the classifiers' own accuracy beside it."""
    table = np.array([[values[f"coherence/{s}_to_{t}"] for t in names] for s in names])
    real = [values[f"coherence/classifier_accuracy/{t}"] for t in names]
    table = np.vstack([table, real])
    figure, axis = plt.subplots(figsize=(1.6 + 0.9 * len(names), 1.2 + 0.6 * len(names)), layout="constrained")
    image = axis.imshow(table, vmin=0.0, vmax=1.0, cmap="cividis")
    for (row, column), value in np.ndenumerate(table):
        color = "white" if value < 0.6 else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names) + 1), [*(f"from {name}" for name in names), "real images"])
    axis.axhline(len(names) - 0.5, color="white", linewidth=3)
    axis.set_xlabel("generated modality")
    figure.colorbar(image, label="share classified as the true label")
    return figure
