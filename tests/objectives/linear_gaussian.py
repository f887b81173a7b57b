"""A model in which everything is known: z ~ N(0, I), x_m | z ~ N(A_m z + b_m, s_m^2 I), encoders linear too.

It implements ``objectives.interface.Functions`` without any of the package's networks, and answers in numpy what
the objectives only estimate: the log-evidence and the posterior. Also the cases that most tests go through:
every method with the options that change its loss.
"""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.objectives import METHODS
from mmvm_jax.types import Batch, DiagonalGaussian

SIZES = {"alpha": 3, "beta": 2, "gamma": 4}  # of each modality's data
LATENT_DIM = 3


@dataclasses.dataclass
class LinearGaussian:
    """Parameters of a few modalities, by name; ``drawn`` collects the latents that decoders were given.

    The order is that of ``names``, by default that of the alphabet, which ``jit`` gives to dictionaries.
    """

    params: dict
    names: tuple = ()
    drawn: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.names = self.names or tuple(sorted(self.params["encoders"]))

    @property
    def identifiers(self):
        return jnp.array([zlib.crc32(name.encode()) for name in self.names], jnp.uint32)

    @property
    def method_params(self):
        return self.params["method"]

    def encode(self, inputs):
        rows = []
        for name in self.names:
            p = self.params["encoders"][name]
            mean = inputs[name] @ p["matrix"] + p["offset"][None]
            rows.append(DiagonalGaussian(mean, jnp.tanh(inputs[name] @ p["spread"]) + p["log_variance"][None]))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    def log_likelihood(self, batch, z, active=True):
        self.drawn.append(z)
        rows = []
        for row, present, name in zip(z, batch.present, self.names):
            p = self.params["decoders"][name]
            x = batch.inputs[name].reshape(*(1,) * (z.ndim - 3), *batch.inputs[name].shape)
            offset = p["offset"].reshape(*(1,) * (z.ndim - 2), -1)
            residual = (x - row @ p["matrix"] - offset) * jnp.exp(-p["log_scale"])
            value = jnp.sum(-0.5 * residual**2 - p["log_scale"] - 0.5 * np.log(2 * np.pi), axis=-1)
            rows.append(jnp.where(present.reshape(*(1,) * (z.ndim - 3), -1), value, 0.0))
        return jnp.stack(rows)


def make_params(names, latent_dim=LATENT_DIM):
    """Float64 parameters; those of a modality depend on its name alone."""
    params = {"encoders": {}, "decoders": {}, "method": {}}
    for name in names:
        generator, size = np.random.default_rng(zlib.crc32(name.encode())), SIZES[name]
        normal = lambda *shape: generator.normal(size=shape)
        params["encoders"][name] = {
            "matrix": 0.5 * normal(size, latent_dim),
            "offset": 0.3 * normal(latent_dim),
            "spread": 0.3 * normal(size, latent_dim),
            "log_variance": 0.3 * normal(latent_dim) - 0.5,
        }
        params["decoders"][name] = {
            "matrix": normal(latent_dim, size),
            "offset": normal(size),
            "log_scale": np.array(0.2 * normal()),
        }
    return jax.tree.map(jnp.asarray, params)


def make_batch(params, present, seed=0, first_index=0):
    """Examples drawn from the model, absent entries zeros (as ``Model.prepare`` leaves them)."""
    decoders, present = jax.tree.map(np.asarray, params["decoders"]), np.asarray(present, bool)
    latent_dim = next(iter(decoders.values()))["matrix"].shape[0]
    z = np.random.default_rng(seed).normal(size=(present.shape[1], latent_dim))
    inputs = {}
    for row, (name, p) in zip(present, decoders.items()):
        noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).normal(size=(len(z), p["offset"].size))
        x = z @ p["matrix"] + p["offset"] + np.exp(p["log_scale"]) * noise
        inputs[name] = jnp.asarray(np.where(row[:, None], x, 0.0))
    index = jnp.arange(first_index, first_index + len(z), dtype=jnp.int32)
    return Batch(inputs, jnp.asarray(present), index, jnp.full(len(z), -1))


def exact(params, batch, example):
    """(log-evidence, posterior mean [D], posterior covariance [D, D]) of an example's observed modalities."""
    matrices, residuals, variances = [], [], []
    for row, (name, p) in zip(np.asarray(batch.present), params["decoders"].items()):
        if row[example]:
            matrices.append(np.asarray(p["matrix"]).T)
            residuals.append(np.asarray(batch.inputs[name])[example] - np.asarray(p["offset"]))
            variances.append(np.full(p["offset"].size, np.exp(2 * np.asarray(p["log_scale"]))))
    matrix, residual, variance = (
        np.concatenate(matrices),
        np.concatenate(residuals),
        np.concatenate(variances),
    )
    marginal = matrix @ matrix.T + np.diag(variance)
    sign, log_determinant = np.linalg.slogdet(2 * np.pi * marginal)
    log_evidence = -0.5 * (residual @ np.linalg.solve(marginal, residual) + log_determinant)
    covariance = np.linalg.inv(np.eye(matrix.shape[1]) + matrix.T @ (matrix / variance[:, None]))
    return log_evidence, covariance @ matrix.T @ (residual / variance), covariance


# The name of a case, its method, the options that differ from the defaults.
CASES = {
    "independent": ("independent", {}),
    "average": ("joint", {"aggregation": "average"}),
    "poe": ("joint", {"aggregation": "poe"}),
    "poe_prior_expert": ("joint", {"aggregation": "poe", "prior_expert": True}),
    "moe": ("joint", {"aggregation": "moe"}),
    "mopoe": ("joint", {"aggregation": "mopoe"}),
    "mopoe_prior_expert": ("joint", {"aggregation": "mopoe", "prior_expert": True}),
    "hellinger": ("joint", {"aggregation": "hellinger"}),
    "barycentre": ("joint", {"aggregation": "barycentre"}),
    "mixture_of_barycentres": ("joint", {"aggregation": "mixture_of_barycentres"}),
    "mvae": ("mvae", {"num_subsets": 2}),
    "mvae_full": ("mvae", {"subsampling": False}),
    "mmvae_loose": ("mmvae", {"num_samples": 3}),
    "mmvae_tight": ("mmvae", {"num_samples": 3, "bound": "tight"}),
    "mmvae_dreg_loose": ("mmvae", {"num_samples": 3, "gradient": "dreg"}),
    "mmvae_dreg_tight": ("mmvae", {"num_samples": 3, "bound": "tight", "gradient": "dreg"}),
    "mmvae_plus": ("mmvae_plus", {"num_samples": 2, "private_dim": 1}),
    "mmvae_plus_tight": ("mmvae_plus", {"num_samples": 2, "private_dim": 1, "bound": "tight"}),
    "mmvae_plus_dreg": ("mmvae_plus", {"num_samples": 2, "private_dim": 1, "gradient": "dreg"}),
    "mmvae_plus_laplace": (
        "mmvae_plus",
        {"num_samples": 2, "private_dim": 1, "latent_distribution": "laplace"},
    ),
    "mmvae_plus_clusters": ("mmvae_plus", {"num_samples": 2, "private_dim": 1, "clusters": 4}),
    "mmvae_plus_laplace_clusters": (
        "mmvae_plus",
        {"num_samples": 2, "private_dim": 1, "latent_distribution": "laplace", "clusters": 4},
    ),
    "mmvm": ("mmvm", {}),
    "mmvm_stopped": ("mmvm", {"stop_prior_gradient": True}),
    "mmvm_variational": ("mmvm", {"estimator": "variational"}),
    "mmvm_monte_carlo": ("mmvm", {"estimator": "monte_carlo", "num_samples": 2}),
    "mmvm_random_experts": ("mmvm", {"num_experts": 2}),
    "mmvm_global": ("mmvm", {"gate": "global"}),
    "mmvm_per_example": ("mmvm", {"gate": "per_example"}),
    "mmvm_per_example_two": ("mmvm", {"gate": "per_example", "num_experts": 2}),
    "mmvm_hard": ("mmvm", {"gate": "per_example", "hard": True}),
    "mmvm_cross": ("mmvm", {}),
    "mmvm_cross_product": ("mmvm", {"cross_source": "product"}),
    "meme": ("meme", {"num_samples": 2, "num_pseudo_inputs": 4}),
    "meme_closed_form": ("meme", {"num_samples": 2, "num_pseudo_inputs": 4, "divergence": "closed_form"}),
    "mmjsd": ("mmjsd", {}),
    "mvtcae": ("mvtcae", {}),
    "crmvae": ("crmvae", {}),
}
HYPER = {"beta": 0.7, "alpha": 0.3, "temperature": 1.5, "label_weight": 2.0}


def hyper_of(case):
    """The hyper-parameters of a case; a share of cross-reconstruction is off unless the case is about it."""
    return HYPER | ({"cross_share": 0.3} if "cross" in case else {})


def make_case(case):
    """(module, options) of a case."""
    method, options = CASES[case]
    return METHODS[method], METHODS[method].Options(**options)


def with_method_params(params, case, batch):
    """The parameters with those of the method, moved off their start so that they matter."""
    module, options = make_case(case)
    started = module.init(jax.random.key(7), batch, LinearGaussian(params), options)
    started = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), started)
    if "output" in started:  # the gate's, which starts uniform
        identifiers = LinearGaussian(params).identifiers
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(8), identifiers)
        started["output"] = jax.vmap(lambda key: jax.random.normal(key, started["output"].shape[1:]))(keys)
    if "log_variance" in started:  # the auxiliary priors of MMVAE+, which start alike
        shift = jnp.array([0.1 * (zlib.crc32(name.encode()) % 7) for name in params["encoders"]])
        started |= {name: started[name] + shift[:, None] for name in started if name != "clusters"}
    if "clusters" in started:  # whose weights start alike
        started["clusters"]["logits"] += 0.3 * jnp.arange(options.clusters)
    return params | {"method": started}


def loss_of(case, params, batch, key=None, names=(), model=None):
    """[B] nats."""
    module, options = make_case(case)
    model = LinearGaussian(params, names) if model is None else model
    hyper = {name: jnp.asarray(value) for name, value in hyper_of(case).items()}
    return module.loss(jax.random.key(3) if key is None else key, batch, model, hyper, options).loss


# These programs run for a millisecond: compiling them well would take longer than it saves.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
jit_loss = quick_jit(loss_of, static_argnames=("case", "names"))


@functools.partial(quick_jit, static_argnums=0)
def loss_and_gradient(case, params, batch):
    """([B] nats, gradient of their sum)."""

    def total(params):
        values = loss_of(case, params, batch)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(params)
    return values, gradient
