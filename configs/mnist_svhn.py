"""MEME on MNIST and SVHN: a handwritten digit and a house number of the same class.

    python -m mmvm_jax.main --config=configs/mnist_svhn.py --workdir=runs/mnist_svhn

Settings: published (Joy et al. 2022, arXiv 2106.12570). Its released code instead trains 500 epochs with
label_weight 10 and the closed-form divergence. The first line below keeps a fraction f of the pairs; the second
removes MNIST from a fraction 1 - f of them, so that SVHN is always present:

    ... --config.data.missing.pattern=paired_fraction --config.data.missing.rate=0.75   (1 - f)
    ... --config.data.missing.pattern=one_modality --config.data.missing.rate=0.75
        --config.data.missing.modality=mnist

Time: 43,800 steps; not measured.
Expected result, published, at f = 1 / .5 / .25 / .125 / .0625: coherence MNIST to SVHN .625 .551 .323 .172 .143
(SVHN always present), SVHN to MNIST .752 .726 .652 .557 .477 (MNIST always present); latent accuracy at f = 1:
MNIST .908, SVHN .648. Other methods at f = 1, coherence MNIST to SVHN, SVHN to MNIST, then latent accuracy:
MMVAE .581 .735 .886 .499, MVAE .123 .498 .892 .131.
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.name = "mnist_svhn"
    config.method.name = "meme"
    config.method.meme.num_pseudo_inputs = 128
    config.network.name = "mnist_svhn"
    config.optimizer.learning_rate = 5e-4
    config.train.update({"epochs": 100.0, "checkpoint_every": 5_000})
    return base_config.variant(config, variant)
