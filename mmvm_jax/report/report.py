"""The report of one run: figures of test examples, and all metrics."""

import os
from collections.abc import Iterator

from matplotlib.figure import Figure

from mmvm_jax.artifacts import run_folder
from mmvm_jax.objectives.method import variant_name
from mmvm_jax.report import figures
from mmvm_jax.report.comparison import Result
from mmvm_jax.report.page import write_page
from mmvm_jax.report.table import write_results

CAPTIONS = {
    "cross_generation": "Cross-generation: bold rows are real test examples; the rows below are generated from them "
    "in the other modalities. Coherence measures whether the label stays the same; all else may change.",
    "coherence": "Coherence: how often a classifier of the target modality finds the true label in generated examples. "
    "The last row is the score of the same classifier on real examples, which is an upper limit.",
    "reconstructions": "Reconstructions: real test examples, and the same examples decoded from their own modality.",
    "unconditional": "Unconditional generation: each column is one draw from the prior, decoded to every modality. "
    "Private latents are drawn separately for each modality; with independent autoencoders all latents are private. "
    "If the method has no prior, draws are from a mixture of Gaussians fitted to draws from the training posteriors.",
    "latents": "Posterior means of test examples, coloured by class if there are classes.",
    "relatedness": "Relatedness: distances between the posteriors of two modalities, of the same and of different test "
    "examples; the mean distances between classes; and a tree of the classes from these distances. Of many pairs, some "
    "are shown, from the most to the least related.",
    "relatedness_table": "Relatedness of all pairs of modalities: how well the distance between two posteriors tells "
    "those of the same test example from those of different test examples (1 is perfect, 0.5 is chance).",
    "learning_curves": "Learning curves: lines are means over the training batches since the previous point; dots are "
    "a fixed sample of the evaluated examples, in evaluation mode. If the two diverge, the model overfits. Crosses are "
    "the examples that early stopping monitors, with the final values of annealed hyper-parameters.",
}
_MOST_SHOWN = {
    "cross_generation": figures.MOST_SOURCES,
    "reconstructions": figures.MOST_ROWS,
    "unconditional": figures.MOST_ROWS,
    "latents": figures.MOST_MAPS,
}  # modalities
_FEWEST_ON_A_MAP = 4  # examples per modality


def write_report(config, evaluation, description, history: list[dict], workdir: str, command: str) -> str:
    """Write ``figures/*.png``, ``evaluation.csv`` and ``report.html`` into the workdir; return the path of the page.

    Args:
      config: configuration of the run.
      evaluation: result of ``evaluate``.
      description: description of the data set.
      history: lines of ``metrics.jsonl``.
      workdir: folder of the run.
      command: the command that started the run.
    """
    names = [modality.name for modality in description.modalities]
    result = Result(variant_name(config.method), config.method.beta, config.seed, evaluation.values)
    write_results(os.path.join(workdir, run_folder.TABLE_FILE), [result], names)
    return write_page(
        "report.html.jinja",
        workdir,
        draw(config, evaluation, description, history),
        _captions(len(names)),
        config,
        title=f"{config.method.name} on {config.data.name}",
        command=command,
        headline=headline(evaluation.values, several_labels=evaluation.test_labels.ndim > 1),
        groups=group(evaluation.values),
    )


def headline(values: dict[str, float], several_labels: bool) -> list[tuple[str, float, float | None]]:
    """Return the numbers at the top of the page: (label, value, chance level or None).

    With several labels per example, always predicting the more frequent value already has a high accuracy. The average
    precision is shown instead.
    """
    score = "average_precision" if several_labels else "accuracy"
    chance = values.get(f"probe_chance/{score}")
    rows = [
        ("cross coherence", "coherence/cross_mean", chance),
        ("classifiers on real data", f"coherence/classifier_{score}/mean", chance),
        (f"latent probe {score.replace('_', ' ')}", f"probe/{score}/mean", chance),
        ("Jensen-Shannon divergence (nats)", "divergence/jensen_shannon", None),
        ("seconds of training", "train/seconds", None),
    ]
    return [(label, values[name], chance) for label, name, chance in rows if name in values]


def group(values: dict[str, float]) -> dict[str, list[tuple[str, float]]]:
    """Group the metrics by the first part of their names: {group: [(rest of the name, value)]}."""
    groups = {}
    for name, value in sorted(values.items()):
        first, _, rest = name.partition("/")
        groups.setdefault(first, []).append((rest, value))
    return groups


def _captions(num_modalities: int) -> dict[str, str]:
    """Return the captions, which say how many modalities are shown if these are not all."""
    some = lambda most: f" Shown are {most} of {num_modalities} modalities." if num_modalities > most else ""
    return {name: text + (some(_MOST_SHOWN[name]) if name in _MOST_SHOWN else "") for name, text in CAPTIONS.items()}


def draw(config, evaluation, description, history) -> Iterator[tuple[str, Figure]]:
    """Yield (name, figure) for the figures that the data allow, in the order of the page."""
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
        if len(evaluation.relatedness) > figures.MOST_PAIRS:
            yield "relatedness_table", figures.relatedness_table(names, evaluation.values)
        yield "relatedness", figures.relatedness(evaluation.relatedness, description.class_names)
    yield "learning_curves", figures.learning_curves(history)
