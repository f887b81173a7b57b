"""Results as a table with one number per row, for pandas."""

import csv
import io
from collections.abc import Iterable, Sequence

from mmvm_jax.errors import UserError
from mmvm_jax.report.comparison import Result
from mmvm_jax.runtime.files import write_text

COLUMNS = ("method", "beta", "seed", "metric", "from", "to", "value")
_REQUIRED = ("method", "beta", "seed", "metric", "value")
_UNDIRECTED = ("relatedness", "correlation")  # metrics of pairs, which name them a_b instead of a_to_b


def write_results(path: str, results: Iterable[Result], names: Sequence[str]) -> None:
    """Write a CSV file: a heading with ``COLUMNS``, then one line per number and run.

    Modalities at the end of a metric's name have their own columns. "coherence/a_to_b" is the metric "coherence" and
    "relatedness/auroc/a_b" the metric "relatedness/auroc", both with "from" a and "to" b. "probe/accuracy/a" has an
    empty "to".

    Args:
      path: the file.
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
    write_text(path, text.getvalue())


def read_results(path: str) -> list[Result]:
    """Read a CSV file as ``write_results`` writes it; the columns "from" and "to" may be absent.

    Raises:
      UserError: the file cannot be read, lacks a column, or has a line that cannot be understood.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if absent := [column for column in _REQUIRED if column not in (reader.fieldnames or ())]:
                raise UserError(f"{path} has no column {absent[0]!r}; allowed: {', '.join(COLUMNS)}")
            runs: dict[tuple[str, float, int], dict[str, float]] = {}
            for line in reader:
                try:
                    key = (line["method"], float(line["beta"]), int(line["seed"]))
                    runs.setdefault(key, {})[_name(line)] = float(line["value"])
                except (ValueError, TypeError) as error:
                    raise UserError(f"{path}, line {reader.line_num}: {error}; allowed: numbers") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--results={path} cannot be read ({error})") from error
    return [Result(method, beta, seed, values) for (method, beta, seed), values in runs.items()]


def _name(line: dict[str, str]) -> str:
    """Return the name of a metric with its modalities, as in ``evaluation.json``."""
    metric, source, target = line["metric"], line.get("from") or "", line.get("to") or ""
    between = "_" if metric.split("/")[0] in _UNDIRECTED else "_to_"
    return "/".join(filter(None, (metric, between.join(filter(None, (source, target))))))


def _places(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return {last part of the name of a metric: (from, to)}."""
    places = {name: (name, "") for name in names}
    places |= {f"{a}_{b}": (a, b) for a in names for b in names}
    sources = [*names, "others"]
    return places | {f"{source}_to_{target}": (source, target) for source in sources for target in names}
