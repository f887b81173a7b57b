"""MEME: each modality in turn is treated as the data, and the other modalities as its noisy label.

For the source s and the other observed modalities T, with z ~ q_s and w = q(T | z) / q(T | s) (gradient stopped):

L(s) = w ( log p(s | z) - log q(T | z) + beta (log p(z | T) - log q_s(z)) ) + lambda log q(T | s)

q(T | z) = prod_{t in T} p(t | z) are the decoders of T, p(z | T) = mean_{t in T} q_t(z) are their encoders, and
q(T | s) is the mean of q(T | z_k) over z and K further draws from q_s, so that w <= K + 1. If only s is observed,
with learned pseudo-inputs u_i in the data space of all absent modalities,

L(s) = log p(s | z) + beta (log mean_i p(z | u_i) - log q_s(z))

loss = -mean_{s in O} L(s). lambda (``label_weight``) is 1 in the paper and 10 in its authors' code, which
also replaces log p(z | T) - log q_s(z) by the closed form -KL(q_s || p(z | T)). Under the weight w these have
different expectations. With two modalities this is the paper's model; the extension to more is ours.

Source: Joy et al. 2022, ICLR, arXiv 2106.12570.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import gaussian_kl, gaussian_log_density, sample, where_present
from mmvm_jax.errors import NOT_NEGATIVE, UserError, unknown_name
from mmvm_jax.objectives.bounds import log_mean_density
from mmvm_jax.objectives.interface import Functions, Hyperparameter, check_at_least
from mmvm_jax.objectives.latents import draw, own_or_mixture, with_sources
from mmvm_jax.objectives.noise import modality_keys
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS = {"label_weight": Hyperparameter(1.0, NOT_NEGATIVE)}
DIVERGENCES = ("monte_carlo", "closed_form")
MAX_MODALITIES = 10


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the estimators of the label's likelihood and of the divergence.

    Attributes:
      num_samples: K, the number of additional draws for q(T | s).
      num_pseudo_inputs: per modality.
      divergence: "monte_carlo" as in the paper, or "closed_form" as in its authors' code. With more than two
        modalities, the closed form is the mean of the divergences to the encoders of T, an upper bound on the
        divergence to their mixture.
    """

    num_samples: int = 10
    num_pseudo_inputs: int = 50
    divergence: str = "monte_carlo"

    def __post_init__(self):
        if self.divergence not in DIVERGENCES:
            raise unknown_name("config.method.meme.divergence", self.divergence, DIVERGENCES)
        check_at_least(1, "meme", "num_samples", self)
        check_at_least(1, "meme", "num_pseudo_inputs", self)


def init(key: Array, batch: Batch, functions: Functions, options: Options) -> dict:
    """Return pseudo-inputs {name: [P, ...]}: observed examples of the batch, repeated if there are fewer than P.

    A modality that is absent from the whole batch starts from uniform noise in [0, 1). Token ids cannot be learned:
    they keep their initial values, and are stored among the parameters as real numbers under a separate name.

    Raises:
      UserError: fewer than 2 modalities, or more than 10.
    """
    if not 2 <= len(functions.names) <= MAX_MODALITIES:
        raise UserError(
            f"config.method.name is 'meme' with {len(functions.names)} modalities; "
            f"allowed: 2 to {MAX_MODALITIES}, since its cost grows with their square"
        )
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, functions.identifiers)
    rows = zip(functions.names, keys, batch.present)
    starts = {name: _start(one, batch.inputs[name], present, options) for name, one, present in rows}
    is_token = lambda name: jnp.issubdtype(batch.inputs[name].dtype, jnp.integer)
    return {
        "pseudo_inputs": {name: x for name, x in starts.items() if not is_token(name)},
        "pseudo_tokens": {name: x for name, x in starts.items() if is_token(name)},
    }


def _start(key: Array, x: Array, present: Array, options: Options) -> Array:
    """Return observed examples in the order of the batch: [B, ...] -> [P, ...]."""
    observed_first = jnp.argsort(~present, stable=True)
    x = jnp.where(jnp.isnan(x), 0, x) if jnp.issubdtype(x.dtype, jnp.floating) else x  # missing entries
    chosen = observed_first[jnp.arange(options.num_pseudo_inputs) % jnp.maximum(jnp.sum(present), 1)]
    noise = jax.random.uniform(key, (options.num_pseudo_inputs, *x.shape[1:]), jnp.result_type(float))
    return jnp.where(jnp.any(present), x[chosen], noise)


def _pseudo_posteriors(functions: Functions) -> DiagonalGaussian:
    """Return the posteriors of the pseudo-inputs: [M, P, D]."""
    params = functions.method_params
    tokens = {name: x.astype(jnp.int32) for name, x in params["pseudo_tokens"].items()}
    return functions.encode(params["pseudo_inputs"] | tokens)


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative mean of L(s) over the observed s: [B] nats."""
    present = batch.present
    posteriors = where_present(present, functions.encode(batch.inputs))
    keys = modality_keys(key, batch.index, functions.identifiers)
    z = jnp.swapaxes(sample(keys, posteriors, options.num_samples + 1), 0, 1)  # [M, K + 1, B, D]
    log_likelihood = functions.log_likelihood(batch, jnp.broadcast_to(z[None], (len(z), *z.shape)), present[:, None])
    own = jnp.einsum("mmkb->mkb", log_likelihood)[:, 0]  # log p(s | z)
    label = jnp.sum(log_likelihood, axis=0) - jnp.einsum("mmkb->mkb", log_likelihood)  # log q(T | z_k)
    label_given_source = jax.nn.logsumexp(label, axis=1) - jnp.log(options.num_samples + 1.0)  # log q(T | s)
    weight = jax.lax.stop_gradient(jnp.exp(label[:, 0] - label_given_source))

    alone = present & (jnp.sum(present, axis=0, keepdims=True) == 1)
    paired_divergence = _divergence_to_others(posteriors, z[:, 0], present, options)
    divergence = jnp.where(alone, _divergence_to_pseudo_inputs(posteriors, z[:, 0], functions), paired_divergence)
    bound = weight * (own - label[:, 0] - hyper["beta"] * divergence) + hyper["label_weight"] * label_given_source
    count = jnp.maximum(jnp.sum(present, axis=0), 1)
    mean = lambda values: jnp.sum(jnp.where(present, values, 0.0), axis=0) / count
    terms = {f"log_likelihood/{name}": row for name, row in zip(functions.names, own)}
    terms |= {"divergence/joint": mean(divergence), "label": mean(label_given_source), "weight": mean(weight)}
    return LossOutput(-mean(bound), terms)


def _divergence_to_others(posteriors: DiagonalGaussian, z: Array, present: Array, options: Options) -> Array:
    """Return KL(q_s || p(z | T)) of every s, from z [M, B, D] or in closed form: [M, B] nats."""
    others = _others(len(present)) & present[:, None]
    if options.divergence == "closed_form":
        source, target = (jax.tree.map(lambda leaf: jnp.expand_dims(leaf, axis), posteriors) for axis in (0, 1))
        count = jnp.maximum(jnp.sum(others, axis=0), 1)
        return jnp.sum(jnp.where(others, gaussian_kl(source, target), 0.0), axis=0) / count
    densities = gaussian_log_density(jax.tree.map(lambda leaf: leaf[:, None], posteriors), z[None])
    return gaussian_log_density(posteriors, z) - log_mean_density(densities, others)


def _divergence_to_pseudo_inputs(posteriors: DiagonalGaussian, z: Array, functions: Functions) -> Array:
    """Return log q_s(z) - log mean_i p(z | u_i) of every s if only s is observed, from z [M, B, D]: [M, B] nats."""
    pseudo = _pseudo_posteriors(functions)  # [M, P, D]
    densities = gaussian_log_density(jax.tree.map(lambda leaf: leaf[:, :, None, None], pseudo), z[None, None])
    per_modality = jax.nn.logsumexp(densities, axis=1) - jnp.log(float(densities.shape[1]))
    return gaussian_log_density(posteriors, z) - log_mean_density(per_modality, _others(len(z)))


def _others(num_modalities: int) -> Array:
    """Return whether the modalities of axes 0 and 1 differ: [M, M, 1] bool."""
    return ~jnp.eye(num_modalities, dtype=bool)[:, :, None]


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return each modality's own posterior if observed, else the mixture of the observed: components [M, M, B, D]."""
    return own_or_mixture(posteriors, present, functions.identifiers)


def prior(functions: Functions, options: Options, num_examples: int, latent_dim: int) -> LatentMixture:
    """Return the mixture of the posteriors of all pseudo-inputs, for all decoders: components [M P, 1, B, D]."""
    pseudo = _pseudo_posteriors(functions)
    shape = (len(functions.names) * options.num_pseudo_inputs, 1, num_examples, latent_dim)
    repeat = lambda leaf: jnp.broadcast_to(leaf.reshape(-1, 1, 1, latent_dim), shape)
    mixture = LatentMixture(jax.tree.map(repeat, pseudo), jnp.full(shape[:-1], -jnp.log(float(shape[0]))))
    numbers = jnp.arange(options.num_pseudo_inputs, dtype=jnp.uint32)
    return with_sources(mixture, (functions.identifiers[:, None] + numbers[None]).reshape(-1, 1))
