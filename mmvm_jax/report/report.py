"""The report of one run: what the model makes of test examples, and every number."""

import os

from mmvm_jax.artifacts import run_folder
from mmvm_jax.objectives.method import variant_name
from mmvm_jax.report import figures
from mmvm_jax.report.comparison import Result
from mmvm_jax.report.page import write_page
from mmvm_jax.report.table import as_csv
from mmvm_jax.runtime.files import write_text

CAPTIONS = {
    "cross_generation": "Cross-generation. Bold rows are real test examples; below each, the other modalities "
    "generated from it alone. Agreement in the label is what coherence counts; the rest is free.",
    "coherence": "Coherence: how well the target's classifier finds the true label in generated examples. "
    "The last row is the classifier on real ones: nothing above it means anything.",
    "reconstructions": "Reconstructions: real test examples, and each decoded from its own modality.",
    "unconditional": "Unconditional generation: one draw a column, seen through every decoder; what is private to a "
    "modality, all of it in independent autoencoders, is drawn for each. Where the method has no prior of its own, a "
    "mixture of Gaussians fitted to the means of the training posteriors stands in.",
    "latents": "Posterior means of test examples, coloured by class where there is one.",
    "relatedness": "Relatedness: distances between two modalities' posteriors of the same and of different test "
    "examples, their means between classes, and the classes joined by these.",
    "learning_curves": "Learning curves: lines are means over the training batches since the last point; dots are of "
    "some of the evaluated examples, always the same, in evaluation mode. Where they part, the model overfits.",
}
_FEWEST_ON_A_MAP = 4  # examples
_HEADLINE = {
    "coherence/cross_mean": "cross coherence",
    "coherence/classifier_accuracy/mean": "classifiers on real data",
    "coherence/classifier_average_precision/mean": "classifiers on real data",
    "probe/accuracy/mean": "latent probe accuracy",
    "divergence/jensen_shannon": "Jensen-Shannon divergence (nats)",
    "train/seconds": "seconds of training",
}


def write_report(config, evaluation, description, history: list[dict], workdir: str, command: str) -> str:
    """Writes ``figures/*.png``, ``evaluation.csv`` and ``report.html`` into the workdir; returns the page's path.

    Args:
      config: of the run.
      evaluation: what ``evaluate`` returned.
      description: of the data set.
      history: lines of ``metrics.jsonl``.
      workdir: the folder of the run.
      command: what reproduces the run.
    """
    names = [modality.name for modality in description.modalities]
    result = Result(variant_name(config.method), config.method.beta, config.seed, evaluation.values)
    write_text(os.path.join(workdir, run_folder.TABLE_FILE), as_csv([result], names))
    return write_page(
        "report.html.jinja",
        workdir,
        _draw(config, evaluation, description, history),
        CAPTIONS,
        config,
        title=f"{config.method.name} on {config.data.name}",
        command=command,
        headline=[(label, evaluation.values[name]) for name, label in _HEADLINE.items() if name in evaluation.values],
        groups=group(evaluation.values),
    )


def group(values: dict[str, float]) -> dict[str, list[tuple[str, float]]]:
    """The metrics by the first part of their names: {group: [(rest of the name, value)]}."""
    groups = {}
    for name, value in sorted(values.items()):
        first, _, rest = name.partition("/")
        groups.setdefault(first, []).append((rest, value))
    return groups


def _draw(config, evaluation, description, history):
    """The figures that the data allow, in the order of the page: (name, figure)."""
    modalities, words = description.modalities, description.vocabularies
    names = [modality.name for modality in modalities]
    if len(names) > 1:
        yield "cross_generation", figures.cross_generation(modalities, evaluation.examples, words)
    if "coherence/cross_mean" in evaluation.values:
        yield "coherence", figures.coherence_table(names, evaluation.values)
    yield "reconstructions", figures.reconstructions(modalities, evaluation.examples, words)
    yield "unconditional", figures.unconditional(modalities, evaluation.unconditional, words)
    if evaluation.test_present.sum(axis=1).min() >= _FEWEST_ON_A_MAP:
        count, seed = config.evaluation.embedding_examples, config.seed
        yield "latents", figures.latents(names, evaluation, description.class_names, count, seed)
    if evaluation.relatedness:
        yield "relatedness", figures.relatedness(evaluation.relatedness, description.class_names)
    yield "learning_curves", figures.learning_curves(history)
