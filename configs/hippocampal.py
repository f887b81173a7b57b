"""MMVM on hippocampal spikes: recordings of neurons of five rats that smell the same odours.

    python -m mmvm_jax.main --config=configs/hippocampal.py --workdir=runs/hippocampal

Settings: published (Sutter et al. 2024, arXiv 2403.05300). The released code sums squared errors, which is a
Normal likelihood of scale 1/sqrt 2; the data set declares this likelihood. The released code tests on its
training data; the splits of this package share no trial.
Time: not measured.
Expected result: published only as figures. In the two latent dimensions the odours separate, at the same place
for all rats.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "hippocampal"
    config.method.mmvae_plus.private_dim = 1
    config.network.update({"name": "hippocampal", "latent_dim": 2})
    config.train.epochs = 999.0
    return base_config.variant(config, variant)
