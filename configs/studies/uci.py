"""The study on UCI Multiple Features: every method at four betas and three seeds, each trained for 100 epochs.

    python -m mmvm_jax.sweep --config=configs/studies/uci.py --workdir=runs/study_uci

Settings: ours, as in configs/uci_multiple_features.py.
Time: about 4 minutes per run on one CPU core. Start the command once per core; the processes share the runs.
Expected result: docs/studies/uci.csv; --results=docs/studies/uci_runs.csv skips the runs that this file has.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "uci_multiple_features"
    config.method.mmvae_plus.private_dim = 10
    config.method.mmvm.anneal_alpha.shape = "linear"
    config.network.update({"name": "mlp", "latent_dim": 20})
    config.train.update({"batch_size": 64, "epochs": 100.0})
    config.sweep.update({"betas": (0.1, 0.25, 1.0, 2.5), "seeds": (0, 1, 2)})
    return base_config.variant(config, variant)
