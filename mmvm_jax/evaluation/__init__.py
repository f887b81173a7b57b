"""Metrics of a trained model, and the table of metrics that users add."""

from collections.abc import Callable

# {name: metric(trained, data, config) -> {key: number}}, which stand as <name>/<key> in evaluation.json, the report and
# sweeps. ``trained`` is a ``models.trained.Trained``, ``data`` a ``data.dataset.DataSet``.
METRICS: dict[str, Callable] = {}
