"""MMVM on CUB: photographs of birds and their captions.

    python -m mmvm_jax.main --config=configs/cub.py --workdir=runs/cub

Settings: published (Sutter et al. 2024, arXiv 2403.05300). Alpha goes from 1 to 0 within 150,000 of the 234,000
steps. The schedule is linear, because the released configuration names no shape. The released code counts
padding in the likelihood of the captions; this package does not. For a test split of classes that are never
seen in training:

    ... --config.data.policy=class_disjoint

Time: 234,000 steps; 4 days on 2 CPU cores, at the step rate in benchmarks/README.md.
Expected result: published only as figures, over beta.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "cub"
    config.method.mmvm.anneal_alpha.update({"shape": "linear", "fraction": 0.641})
    config.network.update({"name": "cub", "latent_dim": 256})
    config.optimizer.learning_rate = 5e-4
    config.train.update({"epochs": 500.0, "checkpoint_every": 5_000})
    return base_config.variant(config, variant)
