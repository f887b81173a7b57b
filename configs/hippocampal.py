"""MMVM on hippocampal spikes: what the neurons of five rats do at the same odour.

    python -m mmvm_jax.main --config=configs/hippocampal.py --workdir=runs/hippocampal

Settings: published (Sutter et al. 2024, arXiv 2403.05300). The squared error of the released code,
summed, is a Normal likelihood of scale 1/sqrt 2, which the data set states. The released code tests on
its training data; the splits here share no trial.
Time: not measured here.
To expect: published as figures only: in the two latent dimensions the odours come apart, and lie at the
same place for all rats.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "hippocampal"
    config.method.mmvae_plus.private_dim = 1
    config.network.update({"name": "hippocampal", "latent_dim": 2})
    config.train.epochs = 999.0
    return base_config.variant(config, variant)
