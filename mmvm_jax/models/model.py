"""From a configuration to pure functions: encoders and decoders of all modalities, grouped into banks.

Modalities whose encoder and decoder are alike form one bank, whose parameters carry a leading axis; how a
bank runs is decided in ``mmvm_jax.networks.bank``. The variables of all banks form one tree,

    {"encoders": [{"params": ..., "batch_stats": ...}, ...], "decoders": [...], "method": ...}

with running statistics only where a network has any. Training keeps them apart from the parameters
(``split_statistics``), evaluation needs both (``join_statistics``).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax import networks
from mmvm_jax.errors import check_shape
from mmvm_jax.models.likelihoods import LIKELIHOODS
from mmvm_jax.networks import bank
from mmvm_jax.networks.normalization import STATISTICS, Training
from mmvm_jax.types import Array, Batch, DiagonalGaussian, Modality

PRECISIONS = ("float32", "bfloat16")  # that networks compute in
_PARTS = ("encoders", "decoders")
_STEEPEST_LOG_VARIANCE = 5.0  # to either side of 0: beyond, variance and precision grow linearly, not exponentially


class Group(NamedTuple):
    """Modalities of equal architecture."""

    rows: tuple[int, ...]  # their places among all modalities
    encoder: object  # linen module: [N, ...] -> DiagonalGaussian [N, D]
    decoder: object  # linen module: [N, D] -> [N, ...]


class Step(NamedTuple):
    """What makes a pass through the networks part of training."""

    batch: Batch  # prepared; its observed inputs enter the running statistics
    key: Array  # of the noise inside networks
    total: Callable  # adds up over all devices what each of them has


@dataclasses.dataclass(frozen=True)
class Model:
    """Encoders and decoders without their parameters."""

    modalities: tuple[Modality, ...]
    latent_dim: int
    groups: tuple[Group, ...]
    precision: str = "float32"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.modalities)

    def init(self, key: Array) -> dict:
        """Variables of all networks; those of a modality depend on ``key`` and its name alone."""
        variables = {part: [] for part in _PARTS}
        for group in self.groups:
            members = [self.modalities[row] for row in group.rows]
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, _identifiers(members))
            encoder_keys, decoder_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
            example = jnp.zeros((1, *members[0].shape), int if members[0].kind == "tokens" else float)
            latent = jnp.zeros((1, self.latent_dim))
            variables["encoders"].append(bank.init_bank(group.encoder, encoder_keys, example))
            variables["decoders"].append(bank.init_bank(group.decoder, decoder_keys, latent))
        return variables

    def prepare(self, batch: Batch) -> Batch:
        """The batch as networks read it: token ids or real numbers, images in [0, 1], zeros where absent."""
        inputs = {}
        for modality, present in zip(self.modalities, batch.present):
            x = batch.inputs[modality.name]
            if modality.kind == "tokens":
                x = x.astype(jnp.int32)
            else:
                x = x.astype(jnp.result_type(float)) * (1.0 / 255.0 if x.dtype == jnp.uint8 else 1.0)
            mask = present.reshape(-1, *(1,) * len(modality.shape))
            inputs[modality.name] = jnp.where(mask, x, 0)
        return batch._replace(inputs=inputs)

    def bind(self, variables: dict, step: Step | None = None) -> "BoundModel":
        """The model with its variables fixed; as in evaluation, unless a step of training is given."""
        return BoundModel(self, variables, step)


@dataclasses.dataclass(frozen=True)
class BoundModel:
    """A model with its variables: what an objective sees (``objectives.interface.Functions``).

    In a step of training it also collects the running statistics that the step ends with. Inputs other than
    those of the step's batch, such as learned ones, are encoded as in evaluation.
    """

    model: Model
    variables: dict
    step: Step | None = None
    _updates: dict = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    @property
    def identifiers(self) -> Array:
        return _identifiers(self.model.modalities)

    @property
    def method_params(self) -> dict:
        return self.variables["method"]

    @property
    def updated_statistics(self) -> dict:
        """Running statistics after the step, as in ``split_statistics``; it must have used all networks."""
        _, statistics = split_statistics(self.variables)
        return {
            part: [self._updates[part, place] if old else {} for place, old in enumerate(banks)]
            for part, banks in statistics.items()
        }

    def encode(self, inputs: Mapping[str, Array]) -> DiagonalGaussian:
        """Posteriors of all modalities: {name: [B, ...]} -> [M, B, D]; their log-variances are ``without_blow_up``."""
        outputs = []
        step = self.step if self.step is not None and inputs is self.step.batch.inputs else None
        for place, group in enumerate(self.model.groups):
            stacked = jnp.stack([inputs[self.names[row]] for row in group.rows])
            posteriors = self._apply("encoders", place, group.encoder, stacked, step)
            for name, leaf in posteriors._asdict().items():
                what = f"{name} of the encoder of {self.names[group.rows[0]]!r}"
                check_shape(what, leaf, (*stacked.shape[:2], self.model.latent_dim))
            outputs.append(posteriors)
        posteriors = jax.tree.map(lambda *parts: self._in_order(jnp.concatenate(parts)), *outputs)
        return posteriors._replace(log_variance=without_blow_up(posteriors.log_variance))

    def _apply(self, part: str, place: int, module, rows: Array, step: Step | None, active: Array | bool = True):
        """One bank of networks on its inputs [m, N, ...]; in a step of training N is a multiple of B.

        Of these the ``active`` [m, N] alone take part in batch statistics, where their modality is observed.
        The networks compute in the model's precision; what they return, and their running statistics, are not.
        """
        variables = self.variables[part][place]
        if self.model.precision == "bfloat16":
            variables = variables | {"params": _cast(variables["params"], jnp.bfloat16)}
            rows = _cast(rows, jnp.bfloat16)
        if step is None or STATISTICS not in variables:
            return _cast(bank.apply_bank(module, variables, rows), jnp.result_type(float))
        batch, key, total = step
        members, repeats = np.array(self.model.groups[place].rows), rows.shape[1] // len(batch.index)
        key = jax.random.fold_in(key, _PARTS.index(part))
        keys = _row_keys(key, self.identifiers[members], repeats, batch.index)
        training = Training(jnp.tile(batch.present[members], (1, repeats)) & active, keys, total)
        outputs, updates = bank.train_bank(module, variables, rows, training)
        # Of a number, not of a function of it: a method may differentiate what it calls here.
        self._updates[part, place] = jax.lax.stop_gradient(updates)
        return _cast(outputs, jnp.result_type(float))

    def _in_order(self, rows: Array) -> Array:
        """Rows that stand group by group, put in the order of the modalities."""
        places = np.concatenate([group.rows for group in self.model.groups])
        return rows if (places == np.arange(places.size)).all() else rows[np.argsort(places)]

    def decode(self, z: Array, active: Array | bool = True) -> dict[str, Array]:
        """Parameters of every likelihood: row m of z [M, ..., D] read by decoder m -> {name: [..., *shape]}.

        Those of tokens are logits [..., *shape, V]. The latents that are not ``active`` (bool, as z without its last
        axis or to be broadcast to it) take no part in batch statistics.
        """
        outputs = {}
        flat = z.reshape(z.shape[0], -1, z.shape[-1])
        active = jnp.broadcast_to(active, z.shape[:-1]).reshape(z.shape[0], -1)
        for place, group in enumerate(self.model.groups):
            rows = flat if len(group.rows) == len(flat) else flat[np.array(group.rows)]
            decoded = self._apply("decoders", place, group.decoder, rows, self.step, active[np.array(group.rows)])
            for row, output in zip(group.rows, decoded):
                what = f"output of the decoder of {self.names[row]!r}"
                check_shape(what, output, (flat.shape[1], *self.model.modalities[row].output_shape))
                outputs[self.names[row]] = output.reshape(*z.shape[1:-1], *output.shape[1:])
        return outputs

    def mean(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Expected data, from what ``decode`` returned."""
        return {m.name: LIKELIHOODS[m.likelihood].mean(outputs[m.name], m) for m in self.model.modalities}

    def log_likelihood(self, batch: Batch, z: Array, active: Array | bool = True) -> Array:
        """Weighted log p(x_m | z_m): z [M, ..., B, D] -> [M, ..., B] nats; 0 where absent.

        ``active`` is that of ``decode``.
        """
        return self.output_log_likelihood(batch, self.decode(z, active))

    def output_log_likelihood(self, batch: Batch, outputs: dict[str, Array]) -> Array:
        """``log_likelihood``, from what ``decode`` returned."""
        rows = []
        for modality, present in zip(self.model.modalities, batch.present):
            x, output = batch.inputs[modality.name], outputs[modality.name]
            extra = (1,) * (output.ndim - x.ndim - (modality.kind == "tokens"))
            log_likelihood = LIKELIHOODS[modality.likelihood].log_likelihood
            value = log_likelihood(x.reshape(*extra, *x.shape), output, modality)
            rows.append(jnp.where(present.reshape(*extra, -1), modality.weight * value, 0.0))
        return jnp.stack(rows)


def make_model(modalities: tuple[Modality, ...], config_network, precision: str = "float32") -> Model:
    """The model of a data set's modalities with the networks of ``config.network``, and ``config.precision``.

    Raises:
      UserError: unknown network, or one that does not fit a modality's kind.
    """
    pairs = [networks.make(modality, config_network) for modality in modalities]
    groups = []
    for pair in dict.fromkeys(pairs):
        rows = tuple(row for row, other in enumerate(pairs) if other == pair)
        groups.append(Group(rows, *pair))
    return Model(tuple(modalities), config_network.latent_dim, tuple(groups), precision)


def without_blow_up(log_variance: Array) -> Array:
    """Log-variances of which variance and precision grow linearly where they are far from 1.

    Between -5 and 5 the log-variances are unchanged, to the bit. Beyond, the excess e becomes log(1 + e), so that
    exp(5) (1 + e) stands for exp(5 + e). The slope is continuous and never 0. See ``docs/stability.md``.
    """
    inner = jnp.clip(log_variance, -_STEEPEST_LOG_VARIANCE, _STEEPEST_LOG_VARIANCE)
    excess = log_variance - inner
    return inner + jnp.sign(excess) * jnp.log1p(jnp.abs(excess))


def split_statistics(variables: dict) -> tuple[dict, dict]:
    """What is learned, and the running statistics of the networks that have them: (params, statistics)."""

    def select(banks, wanted):
        return [{name: leaf for name, leaf in one.items() if (name == STATISTICS) == wanted} for one in banks]

    params = variables | {part: select(variables[part], False) for part in _PARTS}
    return params, {part: select(variables[part], True) for part in _PARTS}


def join_statistics(params: dict, statistics: dict) -> dict:
    """The inverse of ``split_statistics``."""
    return params | {part: [a | b for a, b in zip(params[part], statistics[part])] for part in _PARTS}


def _cast(tree, dtype):
    """Real numbers in another precision; integers, such as token ids, as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _row_keys(key: Array, identifiers: Array, repeats: int, index: Array) -> Array:
    """One key a modality, repetition and example, by name and index: [m, repeats * B], examples fastest."""
    fold = jax.random.fold_in
    one = lambda identifier, repeat, example: fold(fold(fold(key, example), identifier), repeat)
    for axes in ((None, None, 0), (None, 0, None), (0, None, None)):
        one = jax.vmap(one, axes)
    return one(identifiers, jnp.arange(repeats), index).reshape(len(identifiers), -1)


def _identifiers(modalities) -> Array:
    return jnp.array([modality.identifier for modality in modalities], jnp.uint32)
