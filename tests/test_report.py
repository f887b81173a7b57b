"""The report: figures for whatever the data set has, and a page that is safe and whole."""

import pathlib

import numpy as np
import pytest

from mmvm_jax.config import base
from mmvm_jax.evaluation.evaluate import Evaluation
from mmvm_jax.evaluation.examples import Examples
from mmvm_jax.report.figures import latents
from mmvm_jax.report.report import format_number, write_report
from mmvm_jax.types import Modality

HISTORY = [{"step": s, "loss": 1.0 / s, "divergence/a": 0.1, "log_likelihood/a": None} for s in (5, 10)]


def _evaluation(names, shape, values):
    generator = np.random.default_rng(0)
    draw = lambda: generator.random((4, *shape))
    examples = Examples(
        {name: draw() for name in names}, np.arange(4), {s: {t: draw() for t in names} for s in names}
    )
    means = generator.normal(size=(len(names), 30, 5))
    return Evaluation(values, examples, means, np.ones((len(names), 30), bool), np.arange(30) % 3)


def _coherence(names):
    values = {f"coherence/{s}_to_{t}": 0.5 for s in names for t in names}
    values |= {f"coherence/classifier_accuracy/{name}": 0.9 for name in names}
    return values | {"coherence/cross_mean": 0.5}


def _text(path):
    return pathlib.Path(path).read_text(encoding="utf-8")


@pytest.mark.parametrize("channels", [1, 3])
def test_images(tmp_path, channels):
    modalities = [Modality(name, (8, 8, channels), "image", "laplace") for name in ("a", "b")]
    evaluation = _evaluation(("a", "b"), (8, 8, channels), _coherence(("a", "b")))
    path = write_report(base(), evaluation, modalities, HISTORY, str(tmp_path))
    assert _text(path).count("<figure>") == 5
    assert len(list((tmp_path / "figures").iterdir())) == 5


def test_vectors_without_labels_have_no_pictures_of_examples(tmp_path):
    modalities = [Modality("a", (8,), "vector", "normal")]
    evaluation = _evaluation(("a",), (8,), {"reconstruction/mse/a": 0.5})
    write_report(base(), evaluation, modalities, [], str(tmp_path))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"latents", "learning_curves"}


def test_names_are_escaped(tmp_path):
    config = base()
    config.data.name = "<script>alert(1)</script>"
    evaluation = _evaluation(("a",), (8,), {"probe/accuracy/<b>": 0.5})
    path = write_report(config, evaluation, [Modality("a", (8,), "vector", "normal")], [], str(tmp_path))
    assert "<script>" not in _text(path) and "<b>" not in _text(path).partition("<h2>")[2]


def test_two_dimensional_latents_are_drawn_as_they_are():
    means = np.random.default_rng(0).normal(size=(1, 20, 2))
    figure = latents(("a",), means, np.ones((1, 20), bool), np.zeros(20, int), 20, 0)
    drawn = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(drawn, means[0])
    assert figure.axes[0].get_title() == "a, latent"


def test_numbers():
    assert [format_number(v) for v in (0.123456, 12345.6, -3778.2, 0.0)] == ["0.1235", "12,346", "-3,778", "0"]
