"""MMVM on PolyMNIST: five images of a digit, each over crops of its own photograph.

    python -m mmvm_jax.main --config=configs/polymnist.py --workdir=runs/polymnist

Settings: those published for the translated variant (Sutter et al. 2024, arXiv 2403.05300; beta from 2^-7 to 2^3).
Time: 187,200 steps; 24 days on 2 CPU cores, at the step rate in benchmarks/README.md, scaled to five modalities.
Expected result: the coherence of MMVM is published only as a figure. Cross coherence of other methods: MMVAE+ .869
(paper; private and shared latents of 32, Adam 1e-3 with amsgrad, 150 epochs, beta 1 to 2.5); given 1, 2, 3, 4
modalities MoPoE .66 .77 .81 .83 and MVTCAE .69 .77 .83 .86 (MoPoE: latent 512, beta 2.5, batch 256, 300 epochs).
This package has Adam without amsgrad:

    ... --config.method.name=mmvae_plus --config.method.mmvae_plus.latent_distribution=laplace
        --config.network.latent_dim=64 --config.optimizer.learning_rate=1e-3 --config.train.epochs=150
        --config.method.beta=2.5
    ... --config.method.name=joint --config.method.joint.aggregation=mopoe --config.method.beta=2.5
        --config.train.batch_size=256 --config.train.epochs=300
"""

from mmvm_jax import config as base_config


def get_config(variant: str = ""):
    config = base_config.base()
    config.data.update({"name": "polymnist", "num_modalities": 5})
    config.network.update({"name": "polymnist_resnet", "latent_dim": 512})
    config.optimizer.learning_rate = 5e-4
    config.train.update({"epochs": 400.0, "checkpoint_every": 5_000})
    return base_config.variant(config, variant)
