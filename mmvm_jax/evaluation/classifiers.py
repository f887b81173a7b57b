"""The classifiers that coherence is judged by: one a modality, trained on its real training data and kept."""

import os

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import optax

from mmvm_jax import parallel
from mmvm_jax.data.pipeline import Batches, DataSet
from mmvm_jax.model import Model
from mmvm_jax.networks.layers import Conv
from mmvm_jax.progress import Progress
from mmvm_jax.types import Modality

_BATCH_SIZE = 250
_LEARNING_RATE = 1e-3
_SEED = 0


class ConvClassifier(nn.Module):
    """Classes of an image: [B, H, W, C] -> logits [B, classes]."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        for features in (32, 64, 128):
            x = nn.relu(Conv(features)(x))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes)(x)


class DenseClassifier(nn.Module):
    """Classes of anything else: [B, ...] -> logits [B, classes]."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(256)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes)(x)


def classifier(modality: Modality, num_classes: int) -> nn.Module:
    """The architecture for a modality's kind."""
    return ConvClassifier(num_classes) if modality.kind == "image" else DenseClassifier(num_classes)


def load_classifiers(model: Model, data: DataSet, epochs: int, cache_dir: str) -> dict[str, dict]:
    """Parameters of every modality's classifier; those that the cache lacks are trained now, side by side.

    Args:
      model: for its modalities and their preparation.
      data: labelled.
      epochs: of training.
      cache_dir: where they are kept, by the fingerprint of the data.

    Returns:
      {name: variables}.
    """
    os.makedirs(cache_dir, exist_ok=True)
    paths = {name: os.path.join(cache_dir, f"{data.fingerprint}-{name}-{epochs}.msgpack") for name in model.names}
    networks = {modality.name: classifier(modality, data.num_classes) for modality in model.modalities}
    variables = {
        modality.name: networks[modality.name].init(
            jax.random.key(modality.identifier), jnp.zeros((1, *modality.shape))
        )
        for modality in model.modalities
    }
    new = {name: variables[name] for name, path in paths.items() if not os.path.exists(path)}
    if new:
        for name, trained in _train(model, data, networks, new, epochs).items():
            _write(paths[name], flax.serialization.to_bytes(trained))
    return {name: flax.serialization.from_bytes(variables[name], _read(path)) for name, path in paths.items()}


def _train(model, data, networks, variables, epochs):
    """Trains the classifiers in ``variables``, each on the examples that have its modality."""
    optimizer = optax.adam(_LEARNING_RATE)
    rows = {name: model.names.index(name) for name in variables}

    def loss_sum(variables, batch):
        total = 0.0
        for name, row in rows.items():
            logits = networks[name].apply(variables[name], batch.inputs[name])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
            total += jnp.sum(jnp.where(batch.present[row], losses, 0.0))
        return total

    def step(state, batch):
        variables, optimizer_state = state
        batch = model.prepare(batch)
        gradients = jax.grad(loss_sum)(variables, batch)
        counts = {name: jnp.sum(batch.present[row]) for name, row in rows.items()}
        gradients, counts = parallel.sum_over_devices((gradients, counts))
        mean = lambda tree, count: jax.tree.map(lambda total: total / jnp.maximum(count, 1), tree)
        gradients = {name: mean(gradients[name], counts[name]) for name in rows}
        updates, optimizer_state = optimizer.update(gradients, optimizer_state)
        return optax.apply_updates(variables, updates), optimizer_state

    run = parallel.spread(step, reduced=True)
    batches = Batches(data.train, parallel.largest_batch_size(_BATCH_SIZE, len(data.train.labels)), _SEED)
    steps, state = epochs * batches.steps_per_epoch, (variables, optimizer.init(variables))
    with Progress(steps, "steps", "classifiers that coherence is judged by") as progress:
        for _ in range(steps):
            state = run(state, next(batches))
            progress.update(1)
    return jax.device_get(state[0])


def _write(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
