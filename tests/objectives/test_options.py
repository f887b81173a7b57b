"""Options of methods: their defaults, the values that are refused, and the parameters that they start with."""

import jax
import numpy as np
import pytest
from linear_gaussian import LinearGaussian, make_batch, make_params

from mmvm_jax import config
from mmvm_jax.errors import UserError
from mmvm_jax.objectives import METHODS, joint, meme, mmvae, mmvae_plus, mmvm, mvae
from mmvm_jax.objectives.method import final_hyper, make_method

NAMES = ("alpha", "beta", "gamma")


def test_base_configuration_has_every_option_and_hyper_parameter():
    for name, module in METHODS.items():
        base = config.base().method
        base.name = name
        method = make_method(base)
        assert method.options == module.Options()
        on = {key for key, value in module.HYPERPARAMETERS.items() if not value.zero_is_off}
        assert set(final_hyper(base)) == {"beta", *on}


WRONG = [
    (mvae.Options, {"num_subsets": -1}, "config.method.mvae.num_subsets is -1; allowed: 0 and more"),
    (mmvae.Options, {"bound": "iwae"}, "config.method.mmvae.bound is 'iwae'; allowed: loose, tight"),
    (mmvae.Options, {"gradient": "x"}, "config.method.mmvae.gradient is 'x'; allowed: dreg, reparametrised"),
    (mmvae.Options, {"num_samples": 0}, "config.method.mmvae.num_samples is 0"),
    (mmvae_plus.Options, {"latent_distribution": "x"}, "config.method.mmvae_plus.latent_distribution is 'x'"),
    (mmvae_plus.Options, {"absent_private": "x"}, "allowed: auxiliary, prior"),
    (mmvae_plus.Options, {"clusters": -1}, "config.method.mmvae_plus.clusters is -1; allowed: 0 and more"),
    (mmvm.Options, {"gate": "x"}, "config.method.mmvm.gate is 'x'; allowed: global, none, per_example"),
    (mmvm.Options, {"hard": True}, "config.method.mmvm.hard is True without a gate"),
    (mmvm.Options, {"num_experts": -1}, "config.method.mmvm.num_experts is -1"),
    (meme.Options, {"divergence": "x"}, "config.method.meme.divergence is 'x'"),
    (meme.Options, {"num_pseudo_inputs": 0}, "config.method.meme.num_pseudo_inputs is 0"),
]


@pytest.mark.parametrize(("options", "values", "message"), WRONG)
def test_wrong_option_is_named(options, values, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        options(**values)


@pytest.mark.parametrize(
    ("options", "field"),
    [(mmvae.Options, "num_samples"), (mmvae_plus.Options, "num_samples"), (mmvm.Options, "num_samples")]
    + [(meme.Options, "num_samples"), (meme.Options, "num_pseudo_inputs"), (mvae.Options, "num_subsets")],
)
def test_one_is_enough(options, field):
    assert getattr(options(**{field: 1}), field) == 1


class Many(LinearGaussian):
    """More modalities than some methods can bear."""

    def __init__(self, count):
        self.names = tuple(f"m{i}" for i in range(count))


def test_caps_on_the_number_of_modalities():
    with pytest.raises(UserError, match="11 modalities; allowed: 2 to 10"):
        meme.init(jax.random.key(0), None, Many(11), meme.Options())
    for name in ("mopoe", "mixture_of_barycentres"):
        with pytest.raises(UserError, match=f"'{name}' with 13 modalities.*at most 12"):
            joint.init(jax.random.key(0), None, Many(13), joint.Options(aggregation=name))
    assert joint.init(jax.random.key(0), None, Many(12), joint.Options(aggregation="mopoe")) == {}
    assert joint.init(jax.random.key(0), None, Many(20), joint.Options()) == {}


def test_private_part_must_leave_a_shared_one():
    params = make_params(NAMES)
    batch, model = make_batch(params, np.ones((3, 1), bool)), LinearGaussian(params)
    for private_dim in (0, 3):
        with pytest.raises(UserError, match=f"private_dim is {private_dim}; allowed: 1 to 2"):
            mmvae_plus.init(jax.random.key(0), batch, model, mmvae_plus.Options(private_dim=private_dim))
    for private_dim in (1, 2):
        start = mmvae_plus.init(jax.random.key(0), batch, model, mmvae_plus.Options(private_dim=private_dim))
        assert start["mean"].shape == (3, private_dim)


@pytest.mark.parametrize("latent_distribution", ["normal", "laplace"])
def test_auxiliary_priors_start_at_the_prior(latent_distribution):
    params = make_params(NAMES)
    batch, model = make_batch(params, np.ones((3, 1), bool)), LinearGaussian(params)
    options = mmvae_plus.Options(private_dim=2, latent_distribution=latent_distribution)
    start = mmvae_plus.init(jax.random.key(0), batch, model, options)
    # Laplace: of scale 1, so of variance 2, around a mean that is not learned.
    expected = {"normal": {"mean": 0.0, "log_variance": 0.0}, "laplace": {"log_variance": np.log(2.0)}}
    assert start.keys() == expected[latent_distribution].keys()
    for name, value in expected[latent_distribution].items():
        np.testing.assert_allclose(start[name], np.full((3, 2), value), rtol=1e-6)
