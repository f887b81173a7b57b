"""Results as a table with one number per row, for pandas."""

import csv
import io
from collections.abc import Iterable, Sequence

from mmvm_jax.report.comparison import Result

COLUMNS = ("method", "beta", "seed", "metric", "from", "to", "value")


def as_csv(results: Iterable[Result], names: Sequence[str]) -> str:
    """Return CSV text: a heading with ``COLUMNS``, then one line per number and run.

    Modalities at the end of a metric's name have their own columns. "coherence/a_to_b" is the metric "coherence" and
    "relatedness/auroc/a_b" the metric "relatedness/auroc", both with "from" a and "to" b. "probe/accuracy/a" has an
    empty "to".

    Args:
      results: metrics of the runs.
      names: names of the modalities.
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
    """Return {last part of the name of a metric: (from, to)}."""
    places = {name: (name, "") for name in names}
    places |= {f"{a}_{b}": (a, b) for a in names for b in names}
    sources = [*names, "others"]
    return places | {f"{source}_to_{target}": (source, target) for source in sources for target in names}
