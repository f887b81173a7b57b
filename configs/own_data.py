"""MMVM on your own data: one .npz file with an array for each modality.

    python -m mmvm_jax.main --config=configs/own_data.py --config.data.path=my.npz --workdir=runs/mine

The file: <name> [N, ...] for each modality, and, if there are any, <name>__present [N], labels and split.
What each array was taken for is shown before training; ``mmvm_jax.data.own_data`` says how to
override it.
Settings: ours; images have a small convolutional network, all else fully connected ones. Alpha ends above
0, so that an example with a single modality has a prior too.
Time and result depend on the data.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "own_data"
    config.method.beta = 0.25
    config.method.mmvm.alpha = 0.1
    config.method.mmvm.anneal_alpha.shape = "linear"
    config.network.update({"name": "by_kind", "latent_dim": 32})
    config.train.update({"batch_size": 64, "epochs": 50.0})
    return base_config.variant(config, variant)
