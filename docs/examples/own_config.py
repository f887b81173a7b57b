"""The method of geometric.py on polydigits, with the metric of own_parts.py.

cd docs/examples && python -m mmvm_jax.main --config=own_config.py:quicktest --workdir=runs/geometric
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base(imports=("own_parts",))
    config.method.name = "geometric"
    config.network.name = "mlp"
    return base_config.variant(config, variant)
