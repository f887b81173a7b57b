"""MMVM on MIMIC-CXR: a frontal and a lateral radiograph of the same chest.

    python -m mmvm_jax.main --config=configs/mimic_cxr.py --workdir=runs/mimic_cxr

Settings: the defaults of the released code (Sutter et al. 2024, arXiv 2403.05300). Its batch size of 2 allows one
or two devices; on more devices, set a batch size that is a multiple of their number. Alpha goes from 1 to 0
exponentially within 150,000 steps, which is 1 % of the training if there are 120,000 pairs. The next flags keep
studies with one missing view. Alpha then ends above 0, because otherwise nothing keeps the variance of their
posteriors from shrinking:

    ... --config.data.policy=all --config.method.mmvm.alpha=0.1

Time: not measured.
Expected result: published only as figures.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "mimic_cxr"
    config.method.mmvm.anneal_alpha.update({"shape": "exponential", "fraction": 0.01})
    config.network.update({"name": "mimic_cxr", "latent_dim": 256})
    config.optimizer.learning_rate = 5e-6
    config.train.update({"batch_size": 2, "epochs": 251.0, "checkpoint_every": 10_000, "log_every": 500})
    config.evaluation.update({"batch_size": 40, "random_forest": True})
    return base_config.variant(config, variant)
