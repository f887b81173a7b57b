"""Figures as files and one self-contained page that shows them."""

import base64
import importlib.resources
import io
import json
import os

import jinja2
import matplotlib.pyplot as plt

from mmvm_jax.report import figures

_CAPTIONS = {
    "cross_generation": "Cross-generation. Bold rows are real test images; below each, the other modalities "
    "generated from it alone. Agreement in the digit is what coherence counts; the background is free.",
    "coherence": "Coherence: share of generated images that the target's classifier gives the true label. "
    "The last row is the classifier on real images: nothing above it means anything.",
    "reconstructions": "Reconstructions: real test images, and each decoded from its own modality.",
    "latents": "Posterior means of test examples, coloured by class.",
    "learning_curves": "Learning curves, means over the training batches since the last point.",
}


def write_report(config, evaluation, modalities, history: list[dict], workdir: str) -> str:
    """Writes ``figures/*.png`` and ``report.html`` into the workdir; returns the page's path."""
    folder = os.path.join(workdir, "figures")
    os.makedirs(folder, exist_ok=True)
    pictures = []
    for name, figure in _draw(config, evaluation, modalities, history):
        data = _png(figure)
        with open(os.path.join(folder, f"{name}.png"), "wb") as file:
            file.write(data)
        pictures.append({"name": name, "data": base64.b64encode(data).decode(), "caption": _CAPTIONS[name]})
    path = os.path.join(workdir, "report.html")
    page = _template().render(
        title=f"{config.method.name} on {config.data.name}",
        config=json.dumps(config.to_dict(), indent=2),
        headline=_headline(evaluation.values),
        groups=_groups(evaluation.values),
        pictures=pictures,
    )
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(page)
    os.replace(path + ".new", path)
    return path


def _draw(config, evaluation, modalities, history):
    """The figures that the data allow, in the order of the page: (name, figure)."""
    names = [modality.name for modality in modalities]
    images = [modality.name for modality in modalities if modality.kind == "image"]
    if images:
        if len(images) > 1:
            yield "cross_generation", figures.cross_generation(images, evaluation.examples)
    if "coherence/cross_mean" in evaluation.values:
        yield "coherence", figures.coherence_table(names, evaluation.values)
    if images:
        yield "reconstructions", figures.reconstructions(images, evaluation.examples)
    count, seed = config.evaluation.embedding_examples, config.seed
    yield "latents", figures.latents(
        names, evaluation.test_means, evaluation.test_present, evaluation.test_labels, count, seed
    )
    yield "learning_curves", figures.learning_curves(history)


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _template() -> jinja2.Template:
    text = importlib.resources.files("mmvm_jax.report").joinpath("report.html.jinja").read_text("utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


def _headline(values: dict[str, float]) -> list[tuple[str, str]]:
    labels = {
        "coherence/cross_mean": "cross coherence",
        "coherence/classifier_accuracy/mean": "classifiers on real data",
        "probe/accuracy/mean": "latent probe accuracy",
        "divergence/jensen_shannon": "Jensen-Shannon divergence (nats)",
        "train/seconds": "seconds of training",
    }
    return [(label, format_number(values[name])) for name, label in labels.items() if name in values]


def _groups(values: dict[str, float]) -> dict[str, list[tuple[str, str]]]:
    """The metrics by the first part of their names: {group: [(rest of the name, value)]}."""
    groups = {}
    for name, value in sorted(values.items()):
        group, _, rest = name.partition("/")
        groups.setdefault(group, []).append((rest, format_number(value)))
    return groups


def format_number(value: float) -> str:
    """Four significant digits, and none after the point of large numbers."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
