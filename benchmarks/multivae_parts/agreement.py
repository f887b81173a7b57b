"""The losses of the first batch and the norms of their gradients, from the same weights, inputs and noise."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.multivae_parts.case import Case
from benchmarks.peers.multivae import gradient_norm
from mmvm_jax.aggregation import subsets
from mmvm_jax.training.optimizer import hyper_parameters

MEAN_OVER_BATCH = ("mvae", "mopoe", "mvtcae")  # MultiVae's other losses are sums over the batch
_NOISE = np.tile(np.random.default_rng(1).standard_normal(32).astype(np.float32), 32)


def run(case: Case) -> Iterator[str]:
    """Yield the lines of the loss, in nats per example, and of the norm.

    Raises:
      AssertionError: they differ by more than 1e-4.
    """
    with same_noise(), same_subsets(*case.examples.present.shape):
        ours, theirs = _ours(case), _theirs(case)
    for what, own, peer in zip(("loss", "gradient"), ours, theirs):
        yield f"{what:12} ours {own:12,.3f}  MultiVae {peer:12,.3f}  relative difference {abs(own / peer - 1):.1e}"
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@contextlib.contextmanager
def same_noise():
    """Both draw one fixed vector of normal noise for every example, modality and sample.

    Its period is 32, so that it is also the same for MMVAE+, where MultiVae draws the two parts of a latent separately.
    """
    ours = lambda key, shape=(), dtype=None: jnp.broadcast_to(_NOISE[: shape[-1]], shape)
    theirs = lambda shape, dtype, device: torch.from_numpy(_NOISE[: shape[-1]]).expand(shape)
    with (
        mock.patch("jax.random.normal", ours),
        mock.patch("torch.distributions.normal._standard_normal", theirs),
    ):
        yield


def same_subsets(num_modalities: int, batch_size: int):
    """Our MoPoE reads the subsets that MultiVae's reads: as many examples of each, and the rest of the last one.

    Ours draws a subset per example. With fewer examples than subsets, MultiVae uses only the last: all modalities.
    """
    table = subsets(num_modalities)
    counts = np.full(len(table), batch_size // len(table))
    counts[-1] += batch_size - counts.sum()
    members = jnp.asarray(np.repeat(table, counts, axis=0).T)
    return mock.patch("mmvm_jax.objectives.joint.random_subset", lambda *_: members)


def _ours(case: Case) -> tuple[float, float]:
    """Loss and norm of the gradient of the networks."""
    batch, variables = case.model.prepare(case.examples), case.state.variables

    def loss(networks):
        functions = case.model.bind(variables | networks)
        return case.method.loss(jax.random.key(7), batch, functions, hyper_parameters(case.config)).loss.mean()

    networks = {part: variables[part] for part in ("encoders", "decoders")}
    value, gradients = jax.jit(jax.value_and_grad(loss))(networks)
    return float(value), float(optax.tree.norm(gradients))


def _theirs(case: Case) -> tuple[float, float]:
    divisor = 1 if case.name in MEAN_OVER_BATCH else len(case.examples.index)
    case.peer.zero_grad()
    loss = case.peer(case.peer_examples).loss / divisor
    loss.backward()
    return float(loss.detach()), gradient_norm(case.peer)
