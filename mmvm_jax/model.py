"""From a configuration to pure functions: encoders and decoders of all modalities, grouped into banks.

Modalities whose encoder and decoder are alike form one bank, whose parameters carry a leading axis; how a bank
runs is decided in ``mmvm_jax.networks.bank``.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax import networks
from mmvm_jax.likelihoods import LIKELIHOODS
from mmvm_jax.networks import bank
from mmvm_jax.types import Array, Batch, DiagonalGaussian, Modality


class Group(NamedTuple):
    """Modalities of equal architecture."""

    rows: tuple[int, ...]  # their places among all modalities
    encoder: object  # linen module: [N, ...] -> DiagonalGaussian [N, D]
    decoder: object  # linen module: [N, D] -> [N, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """Encoders and decoders without their parameters."""

    modalities: tuple[Modality, ...]
    latent_dim: int
    groups: tuple[Group, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.modalities)

    def init(self, key: Array) -> dict:
        """Parameters of all networks; those of a modality depend on ``key`` and its name alone."""
        params = {"encoders": [], "decoders": []}
        for group in self.groups:
            members = [self.modalities[row] for row in group.rows]
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, _identifiers(members))
            encoder_keys, decoder_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
            image = jnp.zeros((1, *members[0].shape))
            params["encoders"].append(bank.init_bank(group.encoder, encoder_keys, image))
            params["decoders"].append(
                bank.init_bank(group.decoder, decoder_keys, jnp.zeros((1, self.latent_dim)))
            )
        return params

    def prepare(self, batch: Batch) -> Batch:
        """The batch as networks read it: real numbers, images in [0, 1], zeros where absent."""
        inputs = {}
        for modality, present in zip(self.modalities, batch.present):
            x = batch.inputs[modality.name]
            scale = 1.0 / 255.0 if x.dtype == jnp.uint8 else 1.0
            mask = present.reshape(-1, *(1,) * len(modality.shape))
            inputs[modality.name] = jnp.where(mask, x.astype(jnp.result_type(float)) * scale, 0.0)
        return batch._replace(inputs=inputs)

    def bind(self, params: dict) -> "BoundModel":
        """The model with its parameters fixed."""
        return BoundModel(self, params)


@dataclasses.dataclass(frozen=True)
class BoundModel:
    """A model with its parameters: what an objective sees (``objectives.common.Functions``)."""

    model: Model
    params: dict

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    @property
    def identifiers(self) -> Array:
        return _identifiers(self.model.modalities)

    @property
    def method_params(self) -> dict:
        return self.params["method"]

    def encode(self, inputs: dict[str, Array]) -> DiagonalGaussian:
        """Posteriors of all modalities: {name: [B, ...]} -> [M, B, D]."""
        outputs = []
        for group, params in zip(self.model.groups, self.params["encoders"]):
            stacked = jnp.stack([inputs[self.names[row]] for row in group.rows])
            outputs.append(bank.apply_bank(group.encoder, params, stacked))
        return jax.tree.map(lambda *parts: self._in_order(jnp.concatenate(parts)), *outputs)

    def _in_order(self, rows: Array) -> Array:
        """Rows that stand group by group, put in the order of the modalities."""
        places = np.concatenate([group.rows for group in self.model.groups])
        return rows if (places == np.arange(places.size)).all() else rows[np.argsort(places)]

    def decode(self, z: Array) -> dict[str, Array]:
        """Parameters of every likelihood: row m of z [M, ..., D] read by decoder m -> {name: [..., *shape]}."""
        outputs = {}
        flat = z.reshape(z.shape[0], -1, z.shape[-1])
        for group, params in zip(self.model.groups, self.params["decoders"]):
            rows = flat if len(group.rows) == len(flat) else flat[np.array(group.rows)]
            decoded = bank.apply_bank(group.decoder, params, rows)
            for row, output in zip(group.rows, decoded):
                outputs[self.names[row]] = output.reshape(*z.shape[1:-1], *output.shape[1:])
        return outputs

    def mean(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Expected data, from what ``decode`` returned."""
        return {m.name: LIKELIHOODS[m.likelihood].mean(outputs[m.name]) for m in self.model.modalities}

    def log_likelihood(self, batch: Batch, z: Array) -> Array:
        """Weighted log p(x_m | z_m): z [M, ..., B, D] -> [M, ..., B] nats; 0 where absent."""
        return self.output_log_likelihood(batch, self.decode(z))

    def output_log_likelihood(self, batch: Batch, outputs: dict[str, Array]) -> Array:
        """``log_likelihood``, from what ``decode`` returned."""
        rows = []
        for modality, present in zip(self.model.modalities, batch.present):
            x, output = batch.inputs[modality.name], outputs[modality.name]
            extra = (1,) * (output.ndim - x.ndim)
            value = LIKELIHOODS[modality.likelihood].log_likelihood(x.reshape(*extra, *x.shape), output, modality)
            rows.append(jnp.where(present.reshape(*extra, -1), modality.weight * value, 0.0))
        return jnp.stack(rows)


def make_model(modalities: tuple[Modality, ...], config_network) -> Model:
    """The model of a data set's modalities with the networks of ``config.network``.

    Raises:
      UserError: unknown network, or one that does not fit a modality's kind.
    """
    pairs = [networks.make(modality, config_network) for modality in modalities]
    groups = []
    for pair in dict.fromkeys(pairs):
        rows = tuple(row for row, other in enumerate(pairs) if other == pair)
        groups.append(Group(rows, *pair))
    return Model(tuple(modalities), config_network.latent_dim, tuple(groups))


def _identifiers(modalities) -> Array:
    return jnp.array([modality.identifier for modality in modalities], jnp.uint32)
