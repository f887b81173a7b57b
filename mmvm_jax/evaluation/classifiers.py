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
    """Parameters of every modality's classifier, trained now unless the cache has them.

    Args:
      model: for its modalities and their preparation.
      data: labelled.
      epochs: of training.
      cache_dir: where they are kept, by the fingerprint of the data.

    Returns:
      {name: variables}.
    """
    os.makedirs(cache_dir, exist_ok=True)
    return {
        modality.name: _load_one(model, data, modality, epochs, cache_dir) for modality in model.modalities
    }


def _load_one(model, data, modality, epochs, cache_dir):
    path = os.path.join(cache_dir, f"{data.fingerprint}-{modality.name}-{epochs}-epochs.msgpack")
    network = classifier(modality, data.num_classes)
    variables = network.init(jax.random.key(modality.identifier + _SEED), jnp.zeros((1, *modality.shape)))
    if os.path.exists(path):
        with open(path, "rb") as file:
            return flax.serialization.from_bytes(variables, file.read())
    variables = _train(model, data, modality, network, variables, epochs)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(flax.serialization.to_bytes(variables))
    os.replace(temporary, path)
    return variables


def _train(model, data, modality, network, variables, epochs):
    optimizer = optax.adam(_LEARNING_RATE)
    row = model.names.index(modality.name)

    def loss_sum(variables, batch):
        logits = network.apply(variables, batch.inputs[modality.name])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return jnp.sum(jnp.where(batch.present[row], losses, 0.0))

    def step(state, batch):
        variables, optimizer_state = state
        batch = model.prepare(batch)
        gradients = jax.grad(loss_sum)(variables, batch)
        gradients, count = parallel.sum_over_devices((gradients, jnp.sum(batch.present[row])))
        gradients = jax.tree.map(lambda total: total / jnp.maximum(count, 1), gradients)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state)
        return optax.apply_updates(variables, updates), optimizer_state

    run = parallel.spread(step, reduced=True)
    batch_size = min(_BATCH_SIZE, len(data.train.labels))
    batch_size = max(batch_size // parallel.num_devices(), 1) * parallel.num_devices()
    batches = Batches(data.train, batch_size, _SEED)
    steps = epochs * batches.steps_per_epoch
    state = (variables, optimizer.init(variables))
    with Progress(steps * batch_size, "examples", f"classifier of {modality.name}") as progress:
        for _ in range(steps):
            state = run(state, next(batches))
            progress.update(batch_size)
    return jax.device_get(state[0])
