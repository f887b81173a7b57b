"""The scikit-learn estimator passes scikit-learn's own checks, and works in pipelines and with DataFrames."""

import pickle

import numpy as np
import pandas as pd
import pytest
import tiny
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from mmvm_jax import MultimodalVAE

IRIS = load_iris()
GROUPS = {"sepal": [0, 1], "petal": [2, 3]}


def quick(**options) -> MultimodalVAE:
    config = tiny.config()
    config.method.mmvm.anneal_alpha.shape = "constant"
    config.train.steps = 0
    return MultimodalVAE(**{"config": config, "latent_dim": 2, "epochs": 1.0} | options)


@pytest.fixture(scope="module")
def fitted():
    return quick(modalities=GROUPS, epochs=40.0).fit(IRIS.data)


def test_scikit_learn_accepts_the_estimator():
    results = check_estimator(quick(), on_fail=None, on_skip=None)
    failed = {one["check_name"]: one["exception"] for one in results if one["status"] == "failed"}
    assert len(results) > 30 and not failed


def test_a_pipeline_is_validated_by_two_workers():
    pipeline = make_pipeline(quick(modalities=GROUPS, epochs=40.0), LogisticRegression(max_iter=1000))
    scores = cross_val_score(pipeline, IRIS.data, IRIS.target, cv=2, n_jobs=2)
    assert scores.mean() > 0.6


def test_a_clone_and_a_pickle_are_the_same(fitted):
    copy = clone(fitted)
    assert copy.get_params()["modalities"] == GROUPS and not hasattr(copy, "model_")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(IRIS.data), fitted.transform(IRIS.data))


def test_gaps_are_filled_in_and_latents_become_tables_again(fitted):
    holed = np.where(np.random.default_rng(0).random(IRIS.data.shape) < 0.2, np.nan, IRIS.data)
    holed[np.isnan(holed).all(axis=1)] = IRIS.data[0]
    model = clone(fitted).fit(holed)
    filled, gap = model.impute(holed), np.isnan(holed)
    np.testing.assert_array_equal(filled[~gap], holed[~gap])
    scale = IRIS.data.std(axis=0)
    assert np.square((filled - IRIS.data) / scale)[gap].mean() < 0.9
    again = fitted.inverse_transform(fitted.transform(IRIS.data))
    assert again.shape == IRIS.data.shape and np.square((again - IRIS.data) / scale).mean() < 0.7


def test_frames_keep_their_columns_types_and_index():
    frame = pd.DataFrame(IRIS.data, columns=["a", "b", "c", "d"], index=np.arange(150) + 500)
    frame["kind"] = pd.Categorical(IRIS.target_names[IRIS.target])
    frame.loc[503, "kind"] = None
    frame.loc[504, "a"] = np.nan
    model = quick(modalities={"sepal": ["a", "b"], "rest": ["d", "c", "kind"]}).fit(frame)
    filled = model.impute(frame)
    assert (filled.dtypes == frame.dtypes).all() and filled.index.equals(frame.index) and not filled.isna().any().any()
    pd.testing.assert_frame_equal(filled.drop(index=[503, 504]), frame.drop(index=[503, 504]))
    assert model.transform(frame).shape == (150, 2)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame[["b", "a", "c", "d", "kind"]])
