"""The whole evaluation of untrained models on small data: which names there are, and numbers only."""

import jax
import numpy as np
import pytest

from mmvm_jax.config import base, quick
from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.evaluation import METRICS
from mmvm_jax.evaluation.evaluate import evaluate
from mmvm_jax.models.model import make_model
from mmvm_jax.models.priors import draw_aggregate, fit_prior, has_prior
from mmvm_jax.models.trained import Trained
from mmvm_jax.objectives.method import Method, make_method
from mmvm_jax.types import Modality

NAMES = ("a", "b")


def _data(label_kind, num_test=18, names=NAMES, num_classes=3):
    """Vectors that say their class; some are absent."""
    generator = np.random.default_rng(0)

    def split(count):
        classes = np.arange(count) % num_classes
        inputs = {n: (np.eye(4)[classes] + 0.1 * generator.normal(size=(count, 4))).astype(np.float32) for n in names}
        present = np.ones((len(names), count), bool)
        present[0, 1::4] = False
        labels = {"class": classes, "multilabel": np.eye(3, dtype=int)[classes], "none": np.full(count, -1)}[label_kind]
        return Split(inputs, present, labels.astype(np.int32))

    modalities = tuple(Modality(name, (4,), "vector", "normal") for name in names)
    kinds = {"class": num_classes, "multilabel": 3, "none": 0}
    return DataSet(
        modalities, split(40), split(num_test), kinds[label_kind], label_kind, f"{label_kind}{names}{num_classes}"
    )


def _evaluate(data, data_dir, method="mmvm", **settings):
    config = quick(base())
    config.data.dir, config.method.name = data_dir, method
    config.network.update({"name": "mlp", "latent_dim": 3, "mlp": {"hidden_dims": (4,)}})
    config.evaluation.update({"batch_size": 8, "mixture_components": 4} | settings)
    model = make_model(data.modalities, config.network)
    trained = Trained(model, make_method(config.method), jax.jit(model.init)(jax.random.key(0)) | {"method": {}})
    fitted = None
    if not has_prior(trained):
        draws = draw_aggregate(trained, data.train, config.evaluation.batch_size, config.seed)
        fitted = fit_prior(draws, config.evaluation.mixture_components, config.seed)
    evaluation = evaluate(config, trained, data, fitted)
    assert all(isinstance(value, float) and np.isfinite(value) for value in evaluation.values.values())
    return evaluation


def _per_name(prefix):
    return {f"{prefix}/{name}" for name in (*NAMES, "mean")}


def test_classes(data_dir):
    evaluation = _evaluate(_data("class"), data_dir)
    probes = [f"{p}/{m}" for p in ("probe", "probe_shared") for m in ("accuracy", "average_precision", "auroc")]
    clusters = ("cluster/normalized_mutual_information", "cluster/adjusted_rand_index")
    quantities = [f"{part}/{q}" for part in ("reconstruction", "imputation") for q in ("log_likelihood", "mse")]
    expected = set().union(*map(_per_name, [*probes, *clusters, "coherence/classifier_accuracy"]))
    expected |= {f"probe_chance/{metric}" for metric in ("accuracy", "average_precision", "auroc")}
    expected |= {f"coherence/{s}_to_{t}" for s in NAMES for t in NAMES}
    expected |= {"coherence/cross_mean", "coherence/leave_one_out_mean", "coherence/joint"}
    expected |= {f"{q}/{name}" for q in quantities[:2] for name in NAMES}
    expected |= {f"{q}/{pair}" for q in quantities[2:] for pair in ("a_to_b", "b_to_a", "others_to_a", "others_to_b")}
    expected |= {f"relatedness/{number}/a_b" for number in ("matched", "unmatched", "auroc")}
    expected |= {"correlation/a_b", "divergence/jensen_shannon"}
    assert set(evaluation.values) == expected
    assert evaluation.relatedness["a", "b"].class_distances.shape == (3, 3)
    assert {name: x.shape for name, x in evaluation.unconditional.items()} == {name: (5, 4) for name in NAMES}


def test_distances_of_densities_are_of_gaussians_only(data_dir, monkeypatch):
    method = base().method
    method.name = "mmvae_plus"
    assert make_method(method).is_gaussian
    method.mmvae_plus.latent_distribution = "laplace"
    assert not make_method(method).is_gaussian
    monkeypatch.setattr(Method, "is_gaussian", False)
    evaluation = _evaluate(_data("none"), data_dir)
    assert not {name.partition("/")[0] for name in evaluation.values} & {"divergence", "relatedness"}
    assert evaluation.relatedness is None


def test_binary_labels_forests_and_likelihoods_of_a_joint_latent(data_dir):
    values = _evaluate(_data("multilabel"), data_dir, "joint", random_forest=True, likelihood_samples=3).values
    groups = {name.partition("/")[0] for name in values}
    assert groups == {
        "probe", "probe_chance", "probe_forest", "probe_shared", "coherence", "reconstruction", "imputation",
        "relatedness", "correlation", "divergence", "likelihood",
    }  # fmt: skip
    assert {"probe_forest/auroc/joint", "coherence/classifier_average_precision/mean", "coherence/joint"} <= set(values)


def test_a_metric_of_ones_own_stands_beside_the_others(data_dir, monkeypatch):
    metric = lambda trained, data, config: {name: len(data.test.labels) for name in trained.model.names}
    monkeypatch.setitem(METRICS, "size", metric)
    values = _evaluate(_data("none"), data_dir).values
    assert {name: value for name, value in values.items() if name.startswith("size/")} == {
        f"size/{name}": float(len(_data("none").test.labels)) for name in NAMES
    }


@pytest.mark.parametrize("absent", [False, True])
def test_without_labels_and_with_little_data(absent, data_dir):
    """A single test example; or a modality that nobody has."""
    data = _data("none", num_test=7 if absent else 1)
    if absent:
        data.test.present[:], data.train.present[:] = [[False], [True]], [[False], [True]]
    values = _evaluate(data, data_dir).values
    assert not any("probe" in name or "coherence" in name or "relatedness" in name for name in values)
    assert "reconstruction/mse/b" in values and ("reconstruction/mse/a" in values) != absent


def test_one_class_and_a_modality_that_the_test_split_lacks(data_dir):
    data = _data("class", num_classes=1)
    data.test.present[0], data.test.present[1] = False, True
    values = _evaluate(data, data_dir).values
    assert values["coherence/b_to_a"] == values["coherence/classifier_accuracy/mean"] == 1.0
    groups = {name.partition("/")[0] for name in values}
    assert groups == {"coherence", "reconstruction"} | {"imputation"} & groups
    assert not any(name.endswith("/a") for name in values)


def test_one_modality(data_dir):
    data = _data("class", names=("b",))
    data.train.present[:], data.test.present[:] = True, True
    values = _evaluate(data, data_dir, "joint").values
    assert "coherence/b_to_b" in values and "probe/accuracy/b" in values
    assert not any("imputation" in name or "joint" in name.split("/")[:2] for name in values)
