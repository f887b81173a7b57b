"""MMVM: a latent for each modality, and the mixture of all posteriors as their common, data-dependent prior.

loss = sum_m r_m ( -E_{q_m} log p(x_m | z_m) + beta KL(q_m || h) ),  h = sum_j v_j q_j + alpha N(0, I)

Source: Sutter et al. 2024, arXiv 2403.05300, equations 3 and 4, with uniform v. At alpha = 0 an example with a single
observed modality has a divergence of exactly 0, so its posterior has no prior. With missing data, alpha should end
above 0. Ablations may learn v by a gate, or keep only some of the experts in h.

With a cross share e, decoders also read the latents of other modalities (ours). Modality m has the posterior
(1 - e) q_m + e o_m, where o_m is the mixture of the other observed posteriors. The divergence is convex, and h
contains o_m with a weight of (M - 1) (1 - alpha) / M at least, so KL(o_m || h) <= log(M / ((M - 1) (1 - alpha))), a
constant that is left out. Up to it,

loss = sum_m r_m ( -(1 - e) E_{q_m} log p(x_m | z) - e E_{o_m} log p(x_m | z) + beta (1 - e) KL(q_m || h) )

is minus a bound for each e in [0, 1]. Examples with a single observed modality have e = 0. The cross source
"product" replaces single posteriors by products over random subsets of the other posteriors. Their divergence to h has
no such limit, so beta e KL(o_m || h) is added, estimated from one product in the same way as that of q_m.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.distributions import ESTIMATORS, kl_to_mixture, sample, where_present
from mmvm_jax.errors import SHARE, Range, UserError, unknown_name
from mmvm_jax.objectives.bounds import per_modality_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter, check_at_least
from mmvm_jax.objectives.latents import draw, own_or_mixture, posterior_of_all, single_latent
from mmvm_jax.objectives.noise import highest, keyed_uniforms, modality_keys, random_member, random_subset
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

_TEMPERATURE = Range(1e-6, 1e9)  # divergences are divided by it
HYPERPARAMETERS = {
    "alpha": Hyperparameter(0.0, SHARE),
    "temperature": Hyperparameter(1.0, _TEMPERATURE),
    "cross_share": Hyperparameter(0.0, SHARE, zero_is_off=True),
}
VARIANTS = {"mmvm_cross": {"cross_share": 0.2}, "mmvm": {}}
GATES = ("none", "global", "per_example")
CROSS_SOURCES = ("single", "product")
POSTERIORS = ("mixture", "product")
_GATE_WIDTH = 64


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the mixture h and of the divergence to it.

    Attributes:
      estimator: see ``mmvm_jax.distributions.kl_to_mixture``.
      num_samples: number of samples per posterior of the estimator "monte_carlo".
      stop_prior_gradient: whether no gradient flows from the divergence into h, except into a gate.
      gate: "none" (uniform weights), "global" (one learned weight per modality) or "per_example" (weights from
        a small network that reads all posterior means).
      hard: whether the experts in h have equal weights; the gate learns by a straight-through gradient.
      num_experts: number of experts in h: those with the largest weights, or random ones without a gate. 0 means
        all observed modalities, or one if ``hard``.
      cross_source: what decoders read in the cross share: the latent of a "single" other modality, or a latent
        from the "product" of a random subset of the others.
      posterior: what decoders read after training. "mixture" is the paper's: their own posterior, or for absent
        modalities the mixture of the observed ones. "product" is ours: one latent for all, given all that is observed.
    """

    estimator: str = "pairwise"
    num_samples: int = 1
    stop_prior_gradient: bool = False
    gate: str = "none"
    hard: bool = False
    num_experts: int = 0
    cross_source: str = "single"
    posterior: str = "mixture"

    def __post_init__(self):
        choices = {"estimator": ESTIMATORS, "gate": GATES, "cross_source": CROSS_SOURCES, "posterior": POSTERIORS}
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise unknown_name(f"config.method.mmvm.{field}", getattr(self, field), allowed)
        check_at_least(1, "mmvm", "num_samples", self)
        check_at_least(0, "mmvm", "num_experts", self)
        if self.hard and self.gate == "none":
            raise UserError("config.method.mmvm.hard is True without a gate; allowed: with gate=global or per_example")


def check(fields, latent_dim: int) -> None:
    """Raise UserError if alpha is always 1, or if a gate or few experts are combined with what ignores them."""
    if fields.alpha == 1 and fields.anneal_alpha.shape == "constant":
        raise UserError(
            "config.method.mmvm.alpha is 1 from the start, which leaves nothing of the mixture; allowed: less than 1, "
            "or config.method.name=independent"
        )
    if fields.posterior == "product" and (fields.gate != "none" or fields.num_experts):
        raise UserError(
            f"config.method.mmvm.posterior is product with gate={fields.gate} and num_experts={fields.num_experts}; "
            "allowed: posterior=mixture, or gate=none and num_experts=0"
        )
    crosses = fields.cross_share or fields.anneal_cross_share.shape != "constant"
    if crosses and (fields.gate != "none" or fields.num_experts):
        raise UserError(
            f"config.method.mmvm.cross_share is {fields.cross_share} with gate={fields.gate} and "
            f"num_experts={fields.num_experts}; allowed: 0, or gate=none and num_experts=0"
        )


def warning(fields, present: np.ndarray) -> str:
    """Return a warning if examples with a single modality have no prior, else ""."""
    alone = np.mean(np.sum(present, axis=0) == 1)
    if fields.alpha != 0 or not alone:
        return ""
    return (
        f"{100 * alone:.0f} % of the training examples have a single modality; with config.method.mmvm.alpha=0 "
        "their posteriors have no prior, and their variance has no lower bound: set it to 0.1"
    )


def init(key: Array, batch: Batch, functions: Functions, options: Options) -> dict:
    """Return the parameters of the gate, uniform at first: "output" [M], or "input" [M, D, H], "bias", "output" [M, H].

    Raises:
      UserError: ``num_experts`` exceeds the number of modalities.
    """
    num_modalities = len(functions.names)
    if options.num_experts > num_modalities:
        raise UserError(f"config.method.mmvm.num_experts is {options.num_experts}; allowed: 0 to {num_modalities}")
    if options.gate == "none":
        return {}
    if options.gate == "global":
        return {"output": jnp.zeros(num_modalities)}
    latent_dim = jax.eval_shape(functions.encode, batch.inputs).mean.shape[-1]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, functions.identifiers)
    normal = jax.vmap(lambda one: jax.random.normal(one, (latent_dim, _GATE_WIDTH)))(keys)
    return {
        "input": normal / latent_dim**0.5,
        "bias": jnp.zeros(_GATE_WIDTH),
        "output": jnp.zeros((num_modalities, _GATE_WIDTH)),
    }


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative bound with the mixture prior, summed over the observed modalities: [B] nats."""
    latent_key, divergence_key, gate_key = jax.random.split(key, 3)
    keys = lambda purpose: modality_keys(purpose, batch.index, functions.identifiers)
    posteriors = where_present(batch.present, functions.encode(batch.inputs))
    z = sample(keys(latent_key), posteriors)
    divergence_to = functools.partial(_divergence, keys(divergence_key), hyper, options)
    # With these options, no gradient may reach the encoders through the weights of the gate.
    closed = options.hard or options.stop_prior_gradient
    scores = _scores(jax.lax.stop_gradient(posteriors) if closed else posteriors, functions, options)
    ranks = keyed_uniforms(gate_key, batch.index, functions.identifiers) if options.gate == "none" else scores
    divergence = divergence_to(posteriors, _kept(scores, ranks, batch.present, options), batch.present)
    if options.hard:
        # Straight-through: the value and the gradient of the posteriors come from equal weights, the gradient of the
        # gate from its own weights.
        soft = divergence_to(jax.lax.stop_gradient(posteriors), scores, batch.present)
        divergence += soft - jax.lax.stop_gradient(soft)
    if "cross_share" not in hyper:
        return per_modality_bound(functions.names, functions.log_likelihood(batch, z), divergence, hyper["beta"])
    cross_key = jax.random.fold_in(key, 3)  # differs from the three keys above
    return _cross_bound(cross_key, batch, functions, hyper, options, posteriors, z, divergence)


def _divergence(keys: Array, hyper: dict, options: Options, posteriors, log_weights: Array, present: Array) -> Array:
    """Return KL(q_m || h), estimated as the options say: [M, B] nats."""
    return kl_to_mixture(
        posteriors,
        log_weights,
        present,
        prior_weight=hyper["alpha"],
        estimator=options.estimator,
        temperature=hyper["temperature"],
        key=keys,
        num_samples=options.num_samples,
        prior_gradient=not options.stop_prior_gradient,
    )


def _cross_bound(key, batch, functions, hyper, options, posteriors, z, divergence) -> LossOutput:
    """Return the bound with a cross share, given the own latents z [M, B, D] and their divergences [M, B]."""
    source_key, noise_key = jax.random.split(key)
    has_other = jnp.sum(batch.present, axis=0) > 1
    if options.cross_source == "single":
        others = _other_modalities(source_key, batch, functions, random_member)
        other_z = jnp.take_along_axis(z, jnp.argmax(others, axis=0)[..., None], axis=0)
        other_divergence = 0.0
    else:
        others = _other_modalities(source_key, batch, functions, random_subset)
        other_z, other_divergence = _from_products(noise_key, batch, functions, hyper, options, posteriors, others)
    active = jnp.stack([jnp.ones_like(has_other), has_other])[None]
    own, other = jnp.moveaxis(functions.log_likelihood(batch, jnp.stack([z, other_z], axis=1), active), 1, 0)
    share = jnp.where(has_other, hyper["cross_share"], 0.0)[None]
    mix = lambda own, other: (1.0 - share) * own + share * other
    log_likelihood, divergence = mix(own, other), mix(divergence, other_divergence)
    return per_modality_bound(functions.names, log_likelihood, divergence, hyper["beta"])


def _other_modalities(key: Array, batch: Batch, functions: Functions, choose: Callable) -> Array:
    """Return which other observed modalities each decoder reads: [M, M, B] bool, with the decoder as axis 1."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, functions.identifiers)
    other = ~jnp.eye(len(functions.names), dtype=bool)[..., None]
    choose_for = lambda key, other: choose(key, batch._replace(present=batch.present & other), functions)
    return jax.vmap(choose_for, out_axes=1)(keys, other)


def _from_products(key, batch, functions, hyper, options, posteriors, others) -> tuple[Array, Array]:
    """Return draws from the products of the posteriors ``others`` [M, M, B], and the products' divergences to h:
    [M, B, D], [M, B].
    """
    num_modalities = len(others)
    latent_key, divergence_key = jax.random.split(key)
    keys = lambda purpose: modality_keys(purpose, batch.index, functions.identifiers)
    repeat = lambda leaf: jnp.repeat(leaf[:, None], num_modalities, axis=1)
    products = product_of_experts(jax.tree.map(repeat, posteriors), others)
    # The products are passed as further posteriors with weight 0 in h.
    twice = lambda own, other: jnp.concatenate([own, other])
    weights = jnp.zeros(batch.present.shape, posteriors.mean.dtype)
    divergence = _divergence(
        twice(keys(divergence_key), keys(divergence_key)),
        hyper,
        options,
        jax.tree.map(twice, posteriors, products),
        twice(weights, weights - jnp.inf),
        twice(batch.present, batch.present),
    )
    return sample(keys(latent_key), products), divergence[num_modalities:]


def _scores(posteriors: DiagonalGaussian, functions: Functions, options: Options) -> Array:
    """Return log-weights of the experts, not yet normalised over the observed modalities: [M, B]."""
    zeros, gate = jnp.zeros(posteriors.mean.shape[:-1], posteriors.mean.dtype), functions.method_params
    if options.gate == "none":
        return zeros
    if options.gate == "global":
        return gate["output"][:, None] + zeros
    # The means of absent modalities are zeros and contribute nothing.
    hidden = jnp.tanh(jnp.einsum("mbd,mdh->bh", posteriors.mean, gate["input"]) + gate["bias"][None])
    return jnp.einsum("bh,mh->mb", hidden, gate["output"])


def _kept(scores: Array, ranks: Array, present: Array, options: Options) -> Array:
    """Return log-weights of the experts: -inf for those that are not in the mixture, [M, B]."""
    num_experts = options.num_experts or (1 if options.hard else len(present))
    kept = highest(ranks, present, num_experts)
    return jnp.where(kept, 0.0 if options.hard else scores, -jnp.inf)


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the posterior given the observed modalities, as ``options.posterior`` says.

    "mixture": the own posterior of observed modalities, and the mixture of the observed ones for absent modalities,
    [M, M, B, D]. The mixture has the weights of the gate, or uniform ones without a gate. "product": one Gaussian,
    [1, 1, B, D].
    """
    if options.posterior == "product":
        return single_latent(posterior_of_all(posteriors, present))
    scores = _scores(where_present(present, posteriors), functions, options)
    if options.gate != "none":
        scores = _kept(scores, scores, present, options)
    return own_or_mixture(posteriors, present, functions.identifiers, scores)


def prior(functions: Functions, options: Options, num_examples: int, latent_dim: int) -> None:
    """Return None: the prior depends on the data. At alpha > 0, too: N(0, I) is only one component of it.

    For generation, a mixture of Gaussians is fitted to draws from the aggregate posterior.
    """
