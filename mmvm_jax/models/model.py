"""Encoders and decoders of all modalities as pure functions, built from a configuration and grouped into banks.

Modalities with equal encoders and decoders form one bank, whose parameters have a leading axis of modalities.
``mmvm_jax.networks.bank`` decides how a bank runs. The variables of all banks form one tree,

    {"encoders": [{"params": ..., "batch_stats": ...}, ...], "decoders": [...], "method": ..., "likelihoods": ...}

where "likelihoods" has the learned scales by name of the modality, and is absent if there are none. The tree contains
running statistics only for networks that have them. Training keeps the statistics separate from the parameters
(``split_statistics``); evaluation needs both (``join_statistics``).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax import networks
from mmvm_jax.errors import check_shape
from mmvm_jax.models.likelihoods import LIKELIHOODS, learned_parameters
from mmvm_jax.networks import bank
from mmvm_jax.networks.normalization import STATISTICS, Training
from mmvm_jax.types import Array, Batch, DiagonalGaussian, Modality

PRECISIONS = ("float32", "bfloat16")  # of the networks' computations
_PARTS = ("encoders", "decoders")
_LIMIT = 5.0  # absolute log-variance beyond which variance and precision grow linearly instead of exponentially


class Group(NamedTuple):
    """Modalities of equal architecture."""

    rows: tuple[int, ...]  # their positions among all modalities
    encoder: object  # linen module: [N, ...] -> DiagonalGaussian [N, D]
    decoder: object  # linen module: [N, D] -> [N, ...]


class Step(NamedTuple):
    """Inputs of the networks in a training step."""

    batch: Batch  # prepared; its observed inputs update the running statistics
    key: Array  # for the noise inside networks
    total: Callable  # sums an array over all devices
    hidden: float = 0.0  # mean share of the entries of an example that encoders do not see


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
        """Return the variables of all networks. Those of a modality depend only on ``key`` and its name."""
        variables = {part: [] for part in _PARTS}
        for group in self.groups:
            members = [self.modalities[row] for row in group.rows]
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, _identifiers(members))
            encoder_keys, decoder_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
            example = jnp.zeros((1, *members[0].shape), int if members[0].kind == "tokens" else float)
            latent = jnp.zeros((1, self.latent_dim))
            variables["encoders"].append(bank.init_bank(group.encoder, encoder_keys, example))
            variables["decoders"].append(bank.init_bank(group.decoder, decoder_keys, latent))
        learned = {modality.name: learned_parameters(modality) for modality in self.modalities}
        learned = {name: parameters for name, parameters in learned.items() if parameters}
        return variables | ({"likelihoods": learned} if learned else {})

    def prepare(self, batch: Batch) -> Batch:
        """Return the batch as the networks read it: token ids or real numbers, images in [0, 1].

        Absent modalities are zeros. Missing entries of present modalities stay NaN.
        """
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
        """Return the model with its variables bound, in training mode if a step is given, else in evaluation mode."""
        return BoundModel(self, variables, step)


@dataclasses.dataclass(frozen=True)
class BoundModel:
    """A model with its variables, as methods see it (``objectives.interface.Functions``).

    In a training step it also collects the updated running statistics. Inputs other than those of the step's batch,
    such as learned ones, are encoded in evaluation mode.
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

    def learned(self, modality: Modality) -> dict[str, Array]:
        """Return the learned parameters of the modality's likelihood."""
        return self.variables.get("likelihoods", {}).get(modality.name, {})

    @property
    def updated_statistics(self) -> dict:
        """Running statistics after the step, as in ``split_statistics``. The step must have used all networks."""
        _, statistics = split_statistics(self.variables)
        return {
            part: [self._updates[part, place] if old else {} for place, old in enumerate(banks)]
            for part, banks in statistics.items()
        }

    def encode(self, inputs: Mapping[str, Array]) -> DiagonalGaussian:
        """Return the posteriors of all modalities, with ``limit_growth``: {name: [B, ...]} -> [M, B, D]."""
        outputs = []
        step = self.step if self.step is not None and inputs is self.step.batch.inputs else None
        if step is not None and step.hidden:
            inputs = {m.name: _hide(inputs[m.name], m, step) for m in self.model.modalities}
        for place, group in enumerate(self.model.groups):
            stacked = jnp.stack([inputs[self.names[row]] for row in group.rows])
            posteriors = self._apply("encoders", place, group.encoder, stacked, step)
            for name, leaf in posteriors._asdict().items():
                what = f"{name} of the encoder of {self.names[group.rows[0]]!r}"
                check_shape(what, leaf, (*stacked.shape[:2], self.model.latent_dim))
            outputs.append(posteriors)
        posteriors = jax.tree.map(lambda *parts: self._in_order(jnp.concatenate(parts)), *outputs)
        return posteriors._replace(log_variance=limit_growth(posteriors.log_variance))

    def _apply(self, part: str, place: int, module, rows: Array, step: Step | None, active: Array | bool = True):
        """Apply one bank of networks to its inputs [m, N, ...]; in a training step N is a multiple of B.

        Only inputs that are ``active`` [m, N] and whose modality is observed enter the batch statistics. The networks
        compute in the model's precision; their outputs and running statistics have full precision.
        """
        variables = self.variables[part][place]
        if self.model.precision == "bfloat16":
            variables = variables | {"params": _cast(variables["params"], jnp.bfloat16)}
            rows = _cast(rows, jnp.bfloat16)
        if step is None or STATISTICS not in variables:
            return _cast(bank.apply_bank(module, variables, rows), jnp.result_type(float))
        batch, key, total = step.batch, step.key, step.total
        members, repeats = np.array(self.model.groups[place].rows), rows.shape[1] // len(batch.index)
        key = jax.random.fold_in(key, _PARTS.index(part))
        keys = _row_keys(key, self.identifiers[members], repeats, batch.index)
        training = Training(jnp.tile(batch.present[members], (1, repeats)) & active, keys, total)
        outputs, updates = bank.train_bank(module, variables, rows, training)
        # A method may differentiate this function, but the statistics are not part of what it differentiates.
        self._updates[part, place] = jax.lax.stop_gradient(updates)
        return _cast(outputs, jnp.result_type(float))

    def _in_order(self, rows: Array) -> Array:
        """Reorder rows from the order of the groups to the order of the modalities."""
        places = np.concatenate([group.rows for group in self.model.groups])
        return rows if (places == np.arange(places.size)).all() else rows[np.argsort(places)]

    def decode(self, z: Array, active: Array | bool = True) -> dict[str, Array]:
        """Return the parameters of every likelihood: z [M, ..., D], row m for decoder m -> {name: [..., *shape]}.

        For tokens these are logits [..., *shape, V]. Latents that are not ``active`` (bool, broadcastable to
        [M, ...]) are excluded from batch statistics.
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
        """Return the expected data, given the outputs of ``decode``."""
        return {m.name: LIKELIHOODS[m.likelihood].mean(outputs[m.name], m) for m in self.model.modalities}

    def log_likelihood(self, batch: Batch, z: Array, active: Array | bool = True) -> Array:
        """Return the weighted log p(x_m | z_m): z [M, ..., B, D] -> [M, ..., B] nats; 0 where absent.

        ``active`` is passed to ``decode``.
        """
        return self.output_log_likelihood(batch, self.decode(z, active))

    def output_log_likelihood(self, batch: Batch, outputs: dict[str, Array]) -> Array:
        """Return ``log_likelihood``, given the outputs of ``decode``."""
        rows = []
        for modality, present in zip(self.model.modalities, batch.present):
            x, output = batch.inputs[modality.name], outputs[modality.name]
            extra = (1,) * (output.ndim - x.ndim - (modality.kind == "tokens"))
            log_likelihood = LIKELIHOODS[modality.likelihood].log_likelihood
            x = x.reshape(*extra, *x.shape)
            mask = ~jnp.isnan(x) if modality.missing_entries else None
            value = log_likelihood(x, output, modality, self.learned(modality), mask)
            rows.append(jnp.where(present.reshape(*extra, -1), modality.weight * value, 0.0))
        return jnp.stack(rows)


def make_model(modalities: tuple[Modality, ...], config_network, precision: str = "float32") -> Model:
    """Return the model of these modalities with the networks of ``config.network``.

    Raises:
      UserError: unknown network, or a network that does not support a modality's kind.
    """
    pairs = [networks.make(modality, config_network) for modality in modalities]
    groups = []
    for pair in dict.fromkeys(pairs):
        rows = tuple(row for row, other in enumerate(pairs) if other == pair)
        groups.append(Group(rows, *pair))
    return Model(tuple(modalities), config_network.latent_dim, tuple(groups), precision)


def limit_growth(log_variance: Array) -> Array:
    """Return log-variances for which variance and precision grow linearly, not exponentially, far from 1.

    Between -5 and 5 the log-variances are unchanged, bit for bit. Beyond, the excess e becomes log(1 + e), so that
    exp(5 + e) becomes exp(5) (1 + e). The slope is continuous and never 0. See ``docs/stability.md``.
    """
    inner = jnp.clip(log_variance, -_LIMIT, _LIMIT)
    excess = log_variance - inner
    return inner + jnp.sign(excess) * jnp.log1p(jnp.abs(excess))


def split_statistics(variables: dict) -> tuple[dict, dict]:
    """Split variables into learned parameters and running statistics: (params, statistics)."""

    def select(banks, wanted):
        return [{name: leaf for name, leaf in one.items() if (name == STATISTICS) == wanted} for one in banks]

    params = variables | {part: select(variables[part], False) for part in _PARTS}
    return params, {part: select(variables[part], True) for part in _PARTS}


def join_statistics(params: dict, statistics: dict) -> dict:
    """Join parameters and running statistics: the inverse of ``split_statistics``."""
    return params | {part: [a | b for a, b in zip(params[part], statistics[part])] for part in _PARTS}


def _cast(tree, dtype):
    """Convert floating-point leaves to another precision; leave integers, such as token ids, unchanged."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _hide(x: Array, modality: Modality, step: Step) -> Array:
    """Replace random entries by NaN, a share between 0 and twice ``step.hidden`` of each example: [B, ...]."""
    if not modality.missing_entries:
        return x
    keys = _row_keys(jax.random.fold_in(step.key, len(_PARTS)), _identifiers([modality]), 2, step.batch.index)
    share_keys, entry_keys = keys.reshape(2, -1)
    share = 2.0 * step.hidden * jax.vmap(jax.random.uniform)(share_keys)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, modality.shape))(entry_keys)
    return jnp.where(uniform < share.reshape(-1, *(1,) * len(modality.shape)), jnp.nan, x)


def _row_keys(key: Array, identifiers: Array, repeats: int, index: Array) -> Array:
    """Return one key per modality, repetition and example, from name and index: [m, repeats * B], examples fastest."""
    fold = jax.random.fold_in
    one = lambda identifier, repeat, example: fold(fold(fold(key, example), identifier), repeat)
    for axes in ((None, None, 0), (None, 0, None), (0, None, None)):
        one = jax.vmap(one, axes)
    return one(identifiers, jnp.arange(repeats), index).reshape(len(identifiers), -1)


def _identifiers(modalities) -> Array:
    return jnp.array([modality.identifier for modality in modalities], jnp.uint32)
