"""The training state: its initial value, and how it is restored."""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmvm_jax.artifacts import run_folder
from mmvm_jax.artifacts.checkpoints import BEST, NEWEST, Checkpoints, Restored
from mmvm_jax.data.batches import Batches
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.errors import UserError
from mmvm_jax.models.model import Model, join_statistics, split_statistics
from mmvm_jax.objectives.method import Method, make_method
from mmvm_jax.runtime.progress import log
from mmvm_jax.training.optimizer import make_optimizer
from mmvm_jax.types import Array, Batch


class TrainState(NamedTuple):
    """The training state."""

    step: Array  # [] int32, steps done
    params: dict
    statistics: dict  # running statistics of the networks that have them
    optimizer: "optax.OptState | Averaged"

    @property
    def variables(self) -> dict:
        """The variables of the model, for evaluation and inference."""
        params = self.optimizer.average if isinstance(self.optimizer, Averaged) else self.params
        return join_statistics(params, self.statistics)


class Averaged(NamedTuple):
    """The state of the optimiser, and a moving average of the parameters."""

    inner: optax.OptState
    average: dict


def init_state(config, model: Model, method: Method, batch: Batch) -> TrainState:
    """Return the state before the first step; some methods initialise their parameters from ``batch``."""

    def init(seed, batch):
        network_key, method_key = jax.random.split(jax.random.key(seed))
        variables = model.init(network_key) | {"method": {}}
        variables["method"] = method.init(method_key, model.prepare(batch), model.bind(variables))
        # Initialisers make float32 even where the default precision is another.
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), variables)
        params, statistics = split_statistics(variables)
        return _first_state(config, params, statistics)

    return jax.jit(init)(jnp.uint32(config.seed), batch)


def first_batch(config, data: DataSet) -> Batch:
    """Return the first batch of training."""
    return next(Batches(data.train, config.train.batch_size, config.seed))


def start_from(config, model: Model, state: TrainState, batch: Batch) -> TrainState:
    """Return the state before the first step with the parameters of the run in ``config.train.start_from``.

    Raises:
      UserError: there is no run, or its parameters have other shapes.
    """
    workdir, field = config.train.start_from, f"config.train.start_from is {config.train.start_from}"
    theirs = run_folder.read_config(workdir)
    try:
        found = restore(theirs, model, make_method(theirs.method), batch, workdir).state
    except UserError as error:
        raise UserError(f"{field}: no checkpoint with the same modalities and networks; allowed: such a run") from error
    params, statistics = split_statistics(found.variables)
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, state.params):
        raise UserError(f"{field}, whose method {theirs.method.name} has other parameters; allowed: the same method")
    log.info("starting from the parameters of %s, after %d steps", workdir, int(found.step))
    return _first_state(config, params, statistics)


def _first_state(config, params: dict, statistics: dict) -> TrainState:
    optimizer = make_optimizer(config).init(params)
    optimizer = Averaged(optimizer, params) if config.train.average else optimizer
    return TrainState(jnp.zeros((), jnp.int32), params, statistics, optimizer)


def num_bytes(config, model: Model, method: Method, batch: Batch) -> int:
    """Return the size of the training state."""
    state = jax.eval_shape(lambda: init_state(config, model, method, batch))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def restore(config, model: Model, method: Method, batch: Batch, workdir: str) -> Restored:
    """Restore the newest checkpoint of a run, or the best one with early stopping.

    Only the types and shapes of ``batch`` are read.

    Raises:
      UserError: there is no checkpoint.
    """
    like = jax.eval_shape(lambda: init_state(config, model, method, batch))
    folder = BEST if config.train.early_stopping.patience and os.path.exists(os.path.join(workdir, BEST)) else NEWEST
    with Checkpoints(workdir, folder) as checkpoints:
        restored = checkpoints.restore(like)
    if restored is None:
        raise UserError(f"--workdir={workdir} holds no checkpoint; train first: mmvm_jax.main --mode=train")
    return restored
