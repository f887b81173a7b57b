"""The examples that the figures show."""

import numpy as np

from mmvm_jax.data.dataset import Split
from mmvm_jax.evaluation.examples import _choose


def _split(labels, picture, present=None):
    labels, number = np.asarray(labels), np.arange(len(labels))
    inputs = {"picture": np.asarray(picture), "number": number}
    return Split(inputs, np.ones((2, len(labels)), bool) if present is None else np.asarray(present), labels)


def test_classes_alternate():
    split = _split([1, 1, 0, 0, 2, 1], picture=[0, 1, 2, 3, 4, 5])
    assert _choose(split, 5).index.tolist() == [2, 0, 4, 3, 1]


def test_sets_of_labels_differ():
    split = _split([[0, 1], [0, 1], [1, 1], [0, 0], [1, 1]], picture=[0, 1, 2, 3, 4])
    assert _choose(split, 3).index.tolist() == [0, 2, 3]


def test_no_picture_is_shown_twice_while_there_are_others():
    """As of CUB, where ten captions describe one photograph."""
    split = _split(np.full((6, 1), -1), picture=[7, 7, 7, 8, 8, 9])
    assert _choose(split, 3).index.tolist() == [0, 3, 5]
    assert _choose(split, 5).index.tolist() == [0, 3, 5, 1, 2]


def test_absent_inputs_are_not_compared():
    split = _split(np.full(3, -1), picture=[0, 0, 0], present=[[0, 0, 0], [1, 1, 1]])
    assert _choose(split, 2).index.tolist() == [0, 1]


def test_the_most_complete_examples_are_chosen():
    split = _split(np.full(3, -1), picture=[1, 2, 3], present=[[1, 0, 1], [1, 1, 1]])
    assert _choose(split, 3).index.tolist() == [0, 2]
