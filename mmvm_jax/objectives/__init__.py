"""The methods, one file per method. To add a method, add a file and a line to the table ``METHODS`` below.

A method is a module with the following names:

    Options          frozen dataclass of its static options (``config.method.<name>``); checks their values
    HYPERPARAMETERS  {name: Hyperparameter} of its traced numbers except beta (also in ``config.method.<name>``)
    init(key, batch, functions, options) -> dict of parameters that it learns in addition to encoders and decoders
    loss(key, batch, functions, hyper, options) -> LossOutput
    posterior(posteriors, present, functions, options) -> LatentMixture, given any subset of the modalities
    draw(key, index, mixture, options) -> latents [M or 1, B, D]: one joint draw for the decoders
    prior(functions, options, num_examples, latent_dim) -> LatentMixture, or None if the method has no prior

Optional names:

    log_prior_ratio(mixture, z, functions, options) -> log p(z) - log q(z) of a draw from ``posterior``, as two parts:
                     of the shared latent [B] and of the private latents [M or 1, B]. Required for the likelihood metric
    is_gaussian(options) -> whether posteriors are Gaussian; the default is True
    check(fields, latent_dim) raises UserError for incompatible fields of ``config.method.<name>``
    warning(fields, present [M, N]) -> warning about the training data, "" for none
    VARIANTS         {name: options} of variants that a sweep treats as separate methods

Inputs are already prepared: absent entries are zeros. All noise is keyed by the example's index and the modality's
name, so it depends neither on the number of devices nor on absent modalities.
"""

from mmvm_jax.objectives import crmvae, independent, joint, meme, mmjsd, mmvae, mmvae_plus, mmvm, mvae, mvtcae

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
    "crmvae": crmvae,
}
