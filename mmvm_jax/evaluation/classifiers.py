"""Classifiers that measure coherence: one per modality, trained on its real training data and cached."""

import hashlib
import os
from typing import NamedTuple

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmvm_jax.data.batches import Batches
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.errors import first_line
from mmvm_jax.models.model import Model
from mmvm_jax.networks.layers import Conv
from mmvm_jax.runtime import devices, processes
from mmvm_jax.runtime.files import write_bytes
from mmvm_jax.runtime.progress import Progress, log
from mmvm_jax.types import Array, Modality

_BATCH_SIZE = 250
_LEARNING_RATE = 1e-3
_SEED = 0
_FEWEST_STEPS = 40  # per epoch; with few examples, an epoch repeats them


class Output(NamedTuple):
    """Output of a classifier."""

    logits: Array  # [B, C]
    features: Array  # [B, F], the last hidden layer


class ConvClassifier(nn.Module):
    """Classify images [B, H, W, C]."""

    num_classes: int

    @nn.compact
    def __call__(self, x) -> Output:
        for features in (32, 64, 128):
            x = nn.relu(Conv(features)(x))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return Output(nn.Dense(self.num_classes)(x), x)


class TextClassifier(nn.Module):
    """Classify texts, token ids [B, T]: convolutions over five tokens, maximum over positions (Kim 2014, 1408.5882)."""

    num_classes: int
    vocabulary_size: int
    padding: int

    @nn.compact
    def __call__(self, tokens) -> Output:
        x = nn.Embed(self.vocabulary_size, 64)(tokens)
        x = nn.relu(nn.Conv(128, (5,))(jnp.where((tokens != self.padding)[..., None], x, 0.0)))
        x = nn.relu(nn.Dense(128)(jnp.max(x, axis=1)))
        return Output(nn.Dense(self.num_classes)(x), x)


class DenseClassifier(nn.Module):
    """Classify data of any other kind: [B, ...]."""

    num_classes: int

    @nn.compact
    def __call__(self, x) -> Output:
        x = jnp.where(jnp.isnan(x), 0.0, x)  # missing entries
        x = nn.relu(nn.Dense(256)(x.reshape(x.shape[0], -1)))
        return Output(nn.Dense(self.num_classes)(x), x)


def classifier(modality: Modality, num_classes: int) -> nn.Module:
    """Return the classifier network for a modality, by its kind."""
    if modality.kind == "tokens":
        return TextClassifier(num_classes, modality.vocabulary_size, modality.padding)
    return ConvClassifier(num_classes) if modality.kind == "image" else DenseClassifier(num_classes)


def load_classifiers(model: Model, data: DataSet, epochs: int, cache_dir: str) -> dict[str, dict]:
    """Load the classifiers of all modalities from a cache; train those that the cache lacks, all in one program.

    Args:
      model: gives the modalities and prepares their inputs.
      data: the labelled data set.
      epochs: number of training epochs; an epoch has at least 40 steps.
      cache_dir: folder of the cache. A file is found by the fingerprint of the data and by their mask.

    Returns:
      {name: variables}.
    """
    batch_size = devices.largest_batch_size(_BATCH_SIZE, len(data.train.labels))
    steps = epochs * max(len(data.train.labels) // batch_size, _FEWEST_STEPS)
    networks = {modality.name: classifier(modality, data.num_classes) for modality in model.modalities}
    variables = _init(model, networks)
    paths = {}
    for modality, present in zip(model.modalities, data.train.present, strict=True):
        seen = hashlib.blake2b(np.packbits(present).data, digest_size=4).hexdigest()
        parts = (data.fingerprint, seen, modality.name, modality.kind, str(steps))
        paths[modality.name] = os.path.join(cache_dir, "-".join(parts) + ".msgpack")
    kept = processes.from_first(_read, paths, variables)
    if new := {name: variables[name] for name in variables if name not in kept}:
        for name, trained in _train(model, data, networks, new, batch_size, steps).items():
            kept[name] = flax.serialization.to_bytes(trained)
            processes.from_first(_write, paths[name], kept[name])
    return {name: flax.serialization.from_bytes(variables[name], kept[name]) for name in variables}


def _write(path: str, data: bytes) -> None:
    """Write a file of the cache; if it cannot be written, the evaluation continues all the same."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_bytes(path, data)
    except OSError as error:
        log.warning("%s cannot be written (%s), so this classifier will be trained again", path, error.strerror)


def _init(model: Model, networks: dict[str, nn.Module]) -> dict[str, dict]:
    """Return initial variables of all networks. Equal networks share one compiled program."""
    init = jax.jit(lambda network, key, x: network.init(key, x), static_argnums=0)
    variables = {}
    for modality in model.modalities:
        example = jnp.zeros((1, *modality.shape), int if modality.kind == "tokens" else float)
        variables[modality.name] = init(networks[modality.name], jax.random.key(modality.identifier), example)
    return variables


def _train(model, data, networks, variables, batch_size, steps):
    """Train the classifiers in ``variables``, each on the examples in which its modality is present."""
    optimizer = optax.adam(_LEARNING_RATE)
    rows = {name: model.names.index(name) for name in variables}

    def loss_sum(variables, batch):
        total = 0.0
        for name, row in rows.items():
            losses = _losses(networks[name].apply(variables[name], batch.inputs[name]).logits, batch.labels)
            total += jnp.sum(jnp.where(batch.present[row], losses, 0.0))
        return total

    def step(state, batch):
        variables, optimizer_state = state
        batch = model.prepare(batch)
        gradients = jax.grad(loss_sum)(variables, batch)
        counts = {name: jnp.sum(batch.present[row]) for name, row in rows.items()}
        gradients, counts = devices.sum_over_devices((gradients, counts))
        mean = lambda tree, count: jax.tree.map(lambda total: total / jnp.maximum(count, 1), tree)
        gradients = {name: mean(gradients[name], counts[name]) for name in rows}
        updates, optimizer_state = optimizer.update(gradients, optimizer_state)
        return optax.apply_updates(variables, updates), optimizer_state

    run = devices.data_parallel(step, reduced=True)
    batches = Batches(data.train, batch_size, _SEED, processes.share(batch_size))
    state = variables, optimizer.init(variables)
    with Progress(steps, "steps", "classifiers for coherence") as progress:
        for _ in range(steps):
            state = run(state, next(batches))
            progress.update(1)
    return jax.device_get(state[0])


def _losses(logits: Array, labels: Array) -> Array:
    """Return the cross-entropy of the class, or its mean over the known binary labels: [B] nats."""
    if labels.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    known = labels >= 0
    losses = jnp.where(known, optax.sigmoid_binary_cross_entropy(logits, labels), 0.0)
    return jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(known, axis=1), 1)


def classify(
    model: Model, data: DataSet, classifiers: dict[str, dict], inputs: dict[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Classify examples, real or generated.

    Args:
      model: gives the modalities.
      data: gives the kind and number of the labels.
      classifiers: result of ``load_classifiers``.
      inputs: {name: [B, ...]}, prepared as for the networks.

    Returns:
      Predictions: the most likely class [M, B], or probabilities of binary labels [M, B, C].
      Features of the image modalities: {name: [B, F]}.
    """
    rows, features = [], {}
    for modality in model.modalities:
        network, name = classifier(modality, data.num_classes), modality.name
        output = network.apply(classifiers[name], inputs[name])
        is_class = data.label_kind == "class"
        rows.append(jnp.argmax(output.logits, -1) if is_class else jax.nn.sigmoid(output.logits))
        if modality.kind == "image":
            features[name] = output.features
    return jnp.stack(rows), features


def _read(paths: dict[str, str], variables: dict[str, dict]) -> dict[str, bytes]:
    """Read the files that exist and whose contents match the variables."""
    kept = {}
    for name, path in paths.items():
        if os.path.exists(path):
            with open(path, "rb") as file:
                content = file.read()
            try:
                flax.serialization.from_bytes(variables[name], content)
                kept[name] = content
            except Exception as error:  # a damaged file raises many kinds of errors
                log.warning("%s is damaged (%s); training the classifier again", path, first_line(error))
    return kept
