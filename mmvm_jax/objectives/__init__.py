"""One file per method. A method is a module with the following names; a new one is a new file and a line below.

    Options          frozen dataclass of its static choices (``config.method.<name>``), which checks them
    HYPERPARAMETERS  {name: Hyperparameter} of its traced numbers besides beta (also in ``config.method.<name>``)
    init(key, batch, functions, options) -> dict of parameters it learns besides encoders and decoders
    loss(key, batch, functions, hyper, options) -> LossOutput
    posterior(posteriors, present, functions, options) -> LatentMixture, given any subset of the modalities
    draw(key, index, mixture, options) -> latents [M or 1, B, D], one joint draw, which the decoders read
    prior(functions, options, num_examples, latent_dim) -> LatentMixture, or None where there is none

It may also have

    log_prior_ratio(mixture, z, options) -> log p(z) - log q(z) of a draw from ``posterior``: of what all modalities
                     share [B], and of what is private to each [M or 1, B]; without it there is no likelihood metric
    is_gaussian(options) -> whether posteriors are Gaussian; without it they are
    check(fields, latent_dim) raises UserError for fields of ``config.method.<name>`` that do not go together
    warning(fields, present [M, N]) -> str about the training data, "" for none
    VARIANTS         {name: options} that a sweep calls methods of their own

Inputs arrive prepared: absent entries are already zeros. All noise is keyed by the example's index and the
modality's name, so that neither the number of devices nor an absent modality changes it.
"""

from mmvm_jax.objectives import independent, joint, meme, mmjsd, mmvae, mmvae_plus, mmvm, mvae, mvtcae

METHODS = {
    "independent": independent,
    "joint": joint,
    "mvae": mvae,
    "mmvae": mmvae,
    "mmvae_plus": mmvae_plus,
    "mmvm": mmvm,
    "meme": meme,
    "mmjsd": mmjsd,
    "mvtcae": mvtcae,
}
