"""MMVM on your own data: one array or table per modality, in one of the forms of mmvm_jax/data/sources.py.

    python -m mmvm_jax.main --config=configs/own_data.py --config.data.path=my.npz --workdir=runs/mine

The file: <name> [N, ...] for each modality; optionally <name>__present [N], labels and split. The command logs the
kind of each array before it trains; ``mmvm_jax.data.own_data`` says how to override it.
Settings: ours, ``mmvm_jax.config.own_data``. Time and result depend on the data; docs/own_data.md has an example.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    return base_config.variant(base_config.own_data(), variant)
