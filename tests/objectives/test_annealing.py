"""Annealing of hyper-parameters, and how ``config.method`` asks for it."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.config import base
from mmvm_jax.objectives.annealing import SHAPES, anneal
from mmvm_jax.objectives.method import describe_schedules, final_hyper, hyper_at


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "constant"])
def test_goes_from_start_to_end_and_stays(shape):
    values = np.array([anneal(shape, 3.0, 1.0, jnp.float32(p)) for p in np.linspace(0, 1, 21)])
    np.testing.assert_allclose(values[[0, -1]], [3.0, 1.0], atol=1e-6)
    assert (np.diff(values) < 0).all()
    assert anneal(shape, 3.0, 1.0, jnp.float32(7.0)) == 1.0


def test_shapes_half_way():
    halfway = {shape: float(anneal(shape, 1.0, 0.0, jnp.float32(0.5))) for shape in SHAPES}
    expected = {"constant": 0.0, "linear": 0.5, "cosine": 0.5, "exponential": 1e-3**0.5}
    np.testing.assert_allclose([halfway[s] for s in SHAPES], [expected[s] for s in SHAPES], atol=1e-6)
    np.testing.assert_allclose(anneal("cosine", 1.0, 0.0, jnp.float32(0.25)), 0.5 + 0.5**1.5, rtol=1e-6)


def test_unknown_shape():
    with pytest.raises(ValueError, match="'steps'; allowed: constant, linear, cosine, exponential"):
        anneal("steps", 1.0, 0.0, jnp.float32(0.0))


def test_only_what_is_annealed_moves():
    method = base().method
    method.mmvm.alpha = 0.25
    method.mmvm.anneal_alpha.update({"shape": "linear", "start": 1.0, "fraction": 0.5})
    hyper = final_hyper(method)
    at = lambda step: {name: float(v) for name, v in hyper_at(method, hyper, jnp.int32(step), 100).items()}
    assert at(0) == {"beta": 1.0, "alpha": 1.0, "temperature": 1.0}
    assert at(25) == {"beta": 1.0, "alpha": 0.625, "temperature": 1.0}
    assert at(50) == at(99) == {"beta": 1.0, "alpha": 0.25, "temperature": 1.0}


def test_beta_warms_up_over_a_number_of_steps():
    method = base().method
    method.anneal_beta.update({"shape": "linear", "steps": 40})
    hyper = final_hyper(method)
    at = lambda step: float(hyper_at(method, hyper, jnp.int32(step), 100)["beta"])
    np.testing.assert_allclose([at(0), at(10), at(40), at(99)], [0.0, 0.25, 1.0, 1.0])


def test_a_cyclical_schedule_begins_anew():
    """Fu et al. 2019, 1903.10145: in each of several cycles beta rises during half of it."""
    method = base().method
    method.anneal_beta.update({"shape": "linear", "fraction": 0.5, "cycles": 4})
    hyper = final_hyper(method)
    at = [float(hyper_at(method, hyper, jnp.int32(step), 80)["beta"]) for step in range(80)]
    expected = [min(1.0, (step % 20) / 10) for step in range(80)]
    np.testing.assert_allclose(at, expected, atol=1e-6)
    (description,) = describe_schedules(method, 80)
    assert description == (
        "beta moves from 0 to 1 during the first 10 steps of each of 4 cycles (config.method.anneal_beta.fraction=0.5)"
    )
