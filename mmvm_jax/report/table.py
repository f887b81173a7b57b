"""Results as a table with one number a row, which pandas and others read as they are."""

import csv
import io
from collections.abc import Iterable, Sequence

from mmvm_jax.report.comparison import Result

COLUMNS = ("method", "beta", "seed", "metric", "from", "to", "value")


def as_csv(results: Iterable[Result], names: Sequence[str]) -> str:
    """A line for every number of every run, after a line of ``COLUMNS``.

    The modalities that the name of a number ends in stand in columns of their own: "coherence/a_to_b" is the metric
    "coherence" from a to b, "relatedness/auroc/a_b" that of a and b, and "probe/accuracy/a" has no "to".

    Args:
      results: of the runs.
      names: of the modalities.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    places = _places(names)
    for result in results:
        for name, value in sorted(result.values.items()):
            metric, _, last = name.rpartition("/")
            parts = (metric, *places[last]) if last in places else (name, "", "")
            writer.writerow((result.method, result.beta, result.seed, *parts, value))
    return text.getvalue()


def _places(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{last part of a metric's name: (from, to)}."""
    places = {name: (name, "") for name in names}
    places |= {f"{a}_{b}": (a, b) for a in names for b in names}
    sources = [*names, "others"]
    return places | {f"{source}_to_{target}": (source, target) for source in sources for target in names}
