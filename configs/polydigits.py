"""MMVM on polydigits: three views of a digit, each over crops of its own photograph.

python -m mmvm_jax.main --config=configs/polydigits.py --workdir=runs/polydigits
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.train.epochs = 15.0
    config.method.beta = 0.25
    config.method.mmvm.anneal_alpha.shape = "linear"
    return base_config.variant(config, variant)
