"""A fitted model as an object: its history, evaluation, figures and description, and the callbacks of its training."""

import matplotlib.figure
import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax.artifacts import run_folder
from mmvm_jax.experiments import run


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(data, model, its workdir, the lines that a callback saw) of a run on two labelled modalities."""
    folder, seen = tmp_path_factory.mktemp("evaluated"), []
    data = tiny.arrays(photo=None, map=None, note=None) | {"labels": np.arange(tiny.N) % 2}
    data = {name: array for name, array in data.items() if not name.startswith(("photo", "map", "note"))}
    data["spikes__present"] |= ~data["height__present"]
    config = tiny.config()
    config.train.update({"steps": 4, "log_every": 2})
    config.evaluation.update({"classifier_epochs": 1, "divergence_samples": 2, "embedding_examples": 20})
    return data, mmvm_jax.fit(data, config, folder, [lambda *line: seen.append(line)]), folder, seen


def test_evaluate_gives_what_the_command_writes(evaluated, tmp_path):
    data, model, workdir, _ = evaluated
    np.savez(tmp_path / "data.npz", **data)
    config = model.config.copy_and_resolve_references()
    config.data.path = str(tmp_path / "data.npz")
    run.run(config, str(workdir), "evaluate", "")
    written = run_folder.read_evaluation(str(workdir))
    values = model.evaluate(data).values
    assert set(written) - set(values) == {"train/steps", "train/seconds", "train/examples_per_second"}
    for name, value in values.items():
        np.testing.assert_allclose(value, written[name], rtol=1e-5, err_msg=name)


def test_evaluate_uses_the_units_of_training(evaluated):
    data, model, *_ = evaluated
    shown = data | {"height": 1000 + data["height"]}  # other examples have other means
    expected = np.abs(model.encode(shown)["height__mean"][data["height__present"]]).max()
    assert np.nanmax(np.abs(model.evaluate(shown).test_means)) <= expected + 1e-3


def test_history_and_callbacks_have_every_line(evaluated):
    _, model, workdir, seen = evaluated
    assert {split: columns["step"].tolist() for split, columns in model.history.items()} == {
        "train": [2, 4],
        "test": [4],
    }
    assert [(step, split) for step, split, _ in seen] == [(2, "train"), (4, "train"), (4, "test")]
    np.testing.assert_array_equal(model.history["train"]["loss"], [seen[0][2]["loss"], seen[1][2]["loss"]])
    loaded = mmvm_jax.load(workdir)
    assert (
        loaded.history["test"]["loss"] == model.history["test"]["loss"] and loaded.config.method == model.config.method
    )


def test_a_callback_may_end_the_training(evaluated):
    def stop(step, split, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mmvm_jax.fit(evaluated[0], tiny.config(), callbacks=[stop])


def test_figures_are_objects_and_settings_of_matplotlib_stay(evaluated):
    data, model, *_ = evaluated
    before = dict(matplotlib.rcParams)
    figures = model.figures(model.evaluate(data))
    assert {"cross_generation", "reconstructions", "latents", "learning_curves"} <= figures.keys()
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in figures.values())
    assert dict(matplotlib.rcParams) == before


def test_a_model_is_described_in_a_few_lines(evaluated):
    assert repr(evaluated[1]) == (
        "FittedModel of mmvm, latents of 4 dimensions\n"
        "  modalities: height (vector 3), spikes (counts 4)\n  training steps: 4"
    )
