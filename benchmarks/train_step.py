"""A whole training step against PyTorch: the same networks, weights, data, batch and optimiser on the same CPU.

    python -m benchmarks.train_step --what=small_cnn --modalities=5 --batch=128

Needs PyTorch beside the package's own dependencies. The step encodes every modality, samples, decodes, takes the
Laplace log-likelihood and the pairwise divergence of MMVM, differentiates and applies Adam. The peer is written
as PyTorch code usually is, one network after the other, eager and through ``torch.compile``; ours is timed in turn
with it. The last line is the ratio of our examples/s to those of the better peer: median, minimum and maximum
over the rounds. Wants an idle machine: PyTorch's threads wait actively for each other and stall if disturbed.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from absl import app, flags
from torch import nn
from torch.nn import functional

from mmvm_jax.distributions import kl_to_mixture, laplace_log_likelihood
from mmvm_jax.networks import bank, small_cnn

_WHAT = flags.DEFINE_enum("what", "small_cnn", ["small_cnn"], "Which networks.")
_MODALITIES = flags.DEFINE_integer("modalities", 5, "Number of modalities.")
_BATCH = flags.DEFINE_integer("batch", 128, "Examples in a batch.")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "Repetitions that are timed.")

SHAPE, LATENT_DIM, SCALE, LEARNING_RATE = (28, 28, 3), 64, 0.75, 1e-3
ENCODER, DECODER = small_cnn.Encoder(LATENT_DIM), small_cnn.Decoder(SHAPE)


def main(argv):
    del argv
    count, batch = _MODALITIES.value, _BATCH.value
    x, noise = np.random.rand(count, batch, *SHAPE), np.random.randn(count, batch, LATENT_DIM)
    x, noise = x.astype(np.float32), noise.astype(np.float32)
    params = init_params(count)
    peer = Peer(params)
    check_same_loss(params, peer, x, noise)
    steps = {"jax": jax_step(params, x)}
    steps["torch eager"] = torch_step(peer, peer, x)
    steps["torch.compile"] = torch_step(peer, torch.compile(peer), x)
    report(time_in_turn(steps), batch)


def init_params(count):
    """Weights of all encoders and decoders, leaves [M, ...]."""
    keys = jax.random.split(jax.random.key(0), count)
    encoders = bank.init_bank(ENCODER, keys, jnp.zeros((1, *SHAPE)))
    return {"encoders": encoders, "decoders": bank.init_bank(DECODER, keys, jnp.zeros((1, LATENT_DIM)))}


def jax_loss(params, x, noise):
    """Mean loss of a batch: x [M, B, H, W, C], noise [M, B, D]."""
    posteriors = bank.apply_bank(ENCODER, params["encoders"], x)
    z = posteriors.mean + jnp.exp(0.5 * posteriors.log_variance) * noise
    log_likelihood = laplace_log_likelihood(x, bank.apply_bank(DECODER, params["decoders"], z), SCALE, 3)
    return (kl_to_mixture(posteriors, estimator="pairwise") - log_likelihood).sum(0).mean()


def jax_step(params, x):
    """A compiled training step without arguments; prints what it took to compile."""
    optimizer = optax.adam(LEARNING_RATE)

    def step(state, x, key):
        params, moments = state
        key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (*x.shape[:2], LATENT_DIM))
        loss, gradients = jax.value_and_grad(jax_loss)(params, x, noise)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), moments), key, loss

    carry = [(params, optimizer.init(params)), jax.random.key(1)]
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(carry[0], x, carry[1]).compile()
    memory = compiled.memory_analysis()
    megabytes = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e6
    print(f"jax: compiled in {time.perf_counter() - start:.1f} s; arguments and temporaries {megabytes:.0f} MB")
    x = jnp.asarray(x)

    def run():
        carry[0], carry[1], loss = compiled(carry[0], x, carry[1])
        loss.block_until_ready()

    return run


class Network(nn.Module):
    """Encoder and decoder of one modality, as a PyTorch user would write them."""

    def __init__(self):
        super().__init__()
        convolution = lambda a, b: nn.Conv2d(a, b, 3, stride=2, padding=1)
        transpose = lambda a, b, extra: nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=extra)
        self.convolutions = nn.ModuleList([convolution(3, 32), convolution(32, 64), convolution(64, 128)])
        self.head, self.root = nn.Linear(2048, 2 * LATENT_DIM), nn.Linear(LATENT_DIM, 2048)
        self.transposes = nn.ModuleList([transpose(128, 64, 0), transpose(64, 32, 1), transpose(32, 3, 1)])

    def encode(self, x):
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        return self.head(x.flatten(1)).chunk(2, dim=1)

    def decode(self, z):
        x = functional.relu(self.root(z)).unflatten(1, (128, 4, 4))
        for transpose in self.transposes[:-1]:
            x = functional.relu(transpose(x))
        return self.transposes[-1](x)

    @torch.no_grad()
    def load(self, encoder, decoder):
        """Takes over the weights of our networks: two dictionaries {layer: {"kernel", "bias"}}."""
        for i in range(3):
            _load(self.convolutions[i], encoder[f"Conv_{i}"], (3, 2, 0, 1))
            _load(self.transposes[i], decoder[f"ConvTranspose_{i}"], (3, 2, 0, 1))
        head, root = encoder["Dense_0"], decoder["Dense_0"]  # ours count pixels before channels
        kernel = head["kernel"].reshape(4, 4, 128, -1).transpose(2, 0, 1, 3).reshape(2048, -1)
        _load(self.head, {"kernel": kernel, "bias": head["bias"]}, (1, 0))
        order = np.arange(2048).reshape(4, 4, 128).transpose(2, 0, 1).ravel()
        _load(self.root, {"kernel": root["kernel"][:, order], "bias": root["bias"][order]}, (1, 0))


def _load(module, weights, axes):
    module.weight.copy_(torch.tensor(weights["kernel"].transpose(axes)))
    module.bias.copy_(torch.tensor(weights["bias"]))


class Peer(nn.Module):
    """All modalities: the loss of a batch."""

    def __init__(self, params):
        super().__init__()
        params = jax.tree.map(np.asarray, params)
        count = params["encoders"]["params"]["Conv_0"]["bias"].shape[0]
        self.networks = nn.ModuleList([Network() for _ in range(count)])
        for m, network in enumerate(self.networks):
            mine = jax.tree.map(lambda leaf: leaf[m], params)  # noqa: B023
            network.load(mine["encoders"]["params"], mine["decoders"]["params"])

    def forward(self, x, noise):
        """x: M images [B, C, H, W]; noise [M, B, D]."""
        posteriors = [network.encode(image) for network, image in zip(self.networks, x)]
        mean, log_variance = (torch.stack(parts) for parts in zip(*posteriors))
        z = mean + torch.exp(0.5 * log_variance) * noise
        log_likelihood = 0.0
        for network, image, latent in zip(self.networks, x, z):
            error = (image - network.decode(latent)).abs() / SCALE
            log_likelihood -= (error + np.log(2 * SCALE)).sum((1, 2, 3))
        ratio = log_variance[:, None] - log_variance[None]
        distance = (mean[:, None] - mean[None]) ** 2 * torch.exp(-log_variance)[None]
        divergence = 0.5 * (torch.expm1(ratio) - ratio + distance).sum(-1).mean(1)
        return (divergence.sum(0) - log_likelihood).mean()


def torch_step(peer, loss, x):
    """A training step without arguments; prints what the first call took."""
    optimizer = torch.optim.Adam(peer.parameters(), LEARNING_RATE)
    images = [torch.tensor(image.transpose(0, 3, 1, 2).copy()) for image in x]

    def run():
        noise = torch.randn(len(images), len(images[0]), LATENT_DIM)
        optimizer.zero_grad()
        value = loss(images, noise)
        value.backward()
        optimizer.step()
        value.item()

    start = time.perf_counter()
    run()
    print(f"torch: first step after {time.perf_counter() - start:.1f} s")
    return run


def check_same_loss(params, peer, x, noise):
    """Both sides do the same work: equal weights, inputs and noise give an equal loss."""
    ours = float(jax.jit(jax_loss)(params, x, noise))
    images = [torch.tensor(image.transpose(0, 3, 1, 2)) for image in x]
    with torch.no_grad():
        theirs = float(peer(images, torch.tensor(noise)))
    print(f"loss of the first batch: jax {ours:.4f}, torch {theirs:.4f}")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def time_in_turn(steps):
    """Seconds of every step, round by round: {name: [rounds]}."""
    seconds = {name: [] for name in steps}
    for round_ in range(_ROUNDS.value + 3):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= 3:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def matrix_peak():
    """GFLOP/s of a large float32 matrix product through XLA."""
    a = jnp.ones((2048, 2048))
    product, best = jax.jit(jnp.matmul), float("inf")
    for _ in range(10):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def step_gflop():
    """Work of a step in GFLOP: three products for every layer but the first, whose input needs no gradient."""
    sides, channels = (28, 14, 7, 4), (3, 32, 64, 128)
    layers = [9 * channels[i] * channels[i + 1] * sides[i + 1] ** 2 for i in range(3)]
    dense = 2048 * 3 * LATENT_DIM
    products = 3 * (2 * sum(layers) + dense) - layers[0]
    return 2 * products * _MODALITIES.value * _BATCH.value / 1e9


def report(seconds, batch):
    """Prints what every step reached, and the ratio."""
    peak = matrix_peak()
    print(f"{step_gflop():.1f} GFLOP a step; a matrix product of side 2048 reaches {peak:.0f} GFLOP/s")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"{name:14} {batch / middle:7.0f} examples/s  {step_gflop() / middle:5.0f} GFLOP/s  "
            f"median {1e3 * middle:.1f} ms, fastest {1e3 * min(times):.1f} ms"
        )
    best = min(("torch eager", "torch.compile"), key=lambda name: statistics.median(seconds[name]))
    ratios = [theirs / ours for ours, theirs in zip(seconds["jax"], seconds[best])]
    print(f"ratio {statistics.median(ratios):.2f} {min(ratios):.2f} {max(ratios):.2f}")


if __name__ == "__main__":
    app.run(main)
