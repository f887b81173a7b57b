"""The study on polydigits: every method at four betas and three seeds, each trained for 50 epochs.

    python -m mmvm_jax.sweep --config=configs/studies/polydigits.py --workdir=runs/study_polydigits

Settings: ours; the small CNN is half as wide as in configs/polydigits.py.
Time: about 15 minutes per run on one CPU core. Start the command once per core; the processes share the runs.
Expected result: docs/studies/polydigits.csv.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.train.epochs = 50.0
    config.method.mmvm.anneal_alpha.shape = "linear"
    config.network.small_cnn.channels = (16, 32, 64)
    config.sweep.update({"betas": (0.1, 0.25, 1.0, 2.5), "seeds": (0, 1, 2)})
    return base_config.variant(config, variant)
