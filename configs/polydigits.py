"""MMVM on polydigits: three images of a digit, each over crops of its own photograph.

python -m mmvm_jax.main --config=configs/polydigits.py --workdir=runs/polydigits

Settings: ours; no paper uses these data.
Time: about 6 minutes on 2 CPU cores, including evaluation and report.
Expected result: cross coherence .756 to .765, probe .941 to .943 (three seeds, RESULTS.md).
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.train.epochs = 15.0
    config.method.beta = 0.25
    config.method.mmvm.anneal_alpha.shape = "linear"
    return base_config.variant(config, variant)
