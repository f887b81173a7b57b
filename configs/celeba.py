"""MMVM on CelebA: photographs of faces, and a text that names their attributes.

    python -m mmvm_jax.main --config=configs/celeba.py --workdir=runs/celeba

Settings: published (Sutter et al. 2024, arXiv 2403.05300; beta from 0.25 to 4). Alpha goes from 1 to 0 within
150,000 of the 254,000 steps. The schedule is linear, because the released configuration names no shape.
Time: 254,000 steps; 22 days on 2 CPU cores, at the step rate in benchmarks/README.md.
Expected result: published only as figures, over beta.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "celeba"
    config.method.mmvm.anneal_alpha.update({"shape": "linear", "fraction": 0.591})
    config.network.update({"name": "celeba", "latent_dim": 128})
    config.optimizer.learning_rate = 5e-4
    config.train.update({"batch_size": 256, "epochs": 400.0, "checkpoint_every": 5_000})
    config.evaluation.batch_size = 200
    return base_config.variant(config, variant)
