"""MMVM on translated PolyMNIST: three images of a digit, at a different place in each.

    python -m mmvm_jax.main --config=configs/polymnist_translated.py --workdir=runs/polymnist_translated

Settings: published (Sutter et al. 2024, arXiv 2403.05300; latent 512 as in the released script, whose default is
256; beta from 2^-7 to 2^3).
Time: 187,200 steps; 15 days on 2 CPU cores, at the step rate in benchmarks/README.md.
Expected result: published only as figures. Cross coherence and probe should be well above those of the next
command; RESULTS.md has a small run:

    ... --config.method.name=independent
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.update({"name": "polymnist_translated", "num_modalities": 3})
    config.network.update({"name": "polymnist_resnet", "latent_dim": 512})
    config.optimizer.learning_rate = 5e-4
    config.train.update({"epochs": 400.0, "checkpoint_every": 5_000})
    return base_config.variant(config, variant)
