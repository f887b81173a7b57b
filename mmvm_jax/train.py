"""The training step and the loop around it."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmvm_jax import parallel
from mmvm_jax.checkpoints import Checkpoints, Restored
from mmvm_jax.data.pipeline import Batches, DataSet
from mmvm_jax.errors import UserError
from mmvm_jax.method import Method, final_hyper, hyper_at
from mmvm_jax.metrics import MetricWriter
from mmvm_jax.model import Model, Step, join_statistics, split_statistics
from mmvm_jax.progress import Progress
from mmvm_jax.types import Array, Batch

# Folded into a step's key for the noise inside networks; methods fold in less, an example's index.
_NETWORK_NOISE = 2**32 - 1


class TrainState(NamedTuple):
    """All that training changes."""

    step: Array  # [] int32, steps done
    params: dict
    statistics: dict  # running ones of the networks that have any
    optimizer: optax.OptState

    @property
    def variables(self) -> dict:
        """All that the model needs."""
        return join_statistics(self.params, self.statistics)


def num_steps(config, num_examples: int) -> int:
    """Steps of the whole training: ``config.train.steps``, else ``epochs`` times the full batches of an epoch."""
    if config.train.steps:
        return config.train.steps
    return max(1, round(config.train.epochs * (num_examples // config.train.batch_size)))


def make_optimizer(config) -> optax.GradientTransformation:
    """Adam without its learning rate, which is a hyper-parameter of the step."""
    return optax.scale_by_adam(config.optimizer.b1, config.optimizer.b2, config.optimizer.eps)


def init_state(config, model: Model, method: Method, batch: Batch) -> TrainState:
    """The state before the first step; ``batch`` is for methods that start from examples."""

    def init(seed, batch):
        network_key, method_key = jax.random.split(jax.random.key(seed))
        variables = model.init(network_key) | {"method": {}}
        variables["method"] = method.init(method_key, model.prepare(batch), model.bind(variables))
        params, statistics = split_statistics(variables)
        return TrainState(jnp.zeros((), jnp.int32), params, statistics, make_optimizer(config).init(params))

    return jax.jit(init)(config.seed, batch)


def hyper_parameters(config) -> dict[str, Array]:
    """The numbers that runs of one program may differ in: seed, learning rate, beta and what else the method has."""
    numbers = {"seed": jnp.uint32(config.seed), "learning_rate": jnp.asarray(config.optimizer.learning_rate, float)}
    return final_hyper(config.method) | numbers


def first_batch(config, data: DataSet) -> Batch:
    """The batch that training begins with."""
    return next(Batches(data.train, config.train.batch_size, config.seed))


def restore(config, model: Model, method: Method, batch: Batch, workdir: str) -> Restored:
    """The newest checkpoint of a run, on whatever machine it was saved; of ``batch`` only types and shapes are read.

    Raises:
      UserError: there is none.
    """
    like = jax.eval_shape(lambda: init_state(config, model, method, batch))
    checkpoints = Checkpoints(workdir)
    try:
        restored = checkpoints.restore(parallel.on_this_machine(like))
    finally:
        checkpoints.close()
    if restored is None:
        raise UserError(f"--workdir={workdir} holds no checkpoint; train first: mmvm_jax.main --mode=train")
    return restored


def make_step(config, model: Model, method: Method, total_steps: int) -> Callable:
    """One step of training on all devices: (state, batch, hyper) -> (state, metrics), ``hyper_parameters`` given.

    The metrics are means over the batch, so the terms add up to the loss; ``grad_norm`` is that of the gradient.
    """
    optimizer = make_optimizer(config)

    def loss_sum(params, statistics, key, batch, hyper):
        in_networks = Step(batch, jax.random.fold_in(key, _NETWORK_NOISE), parallel.sum_over_devices)
        functions = model.bind(join_statistics(params, statistics), in_networks)
        output = method.loss(key, batch, functions, hyper)
        sums = jax.tree.map(jnp.sum, {"loss": output.loss, **output.terms})
        return sums["loss"], (sums, functions.updated_statistics)

    def step(state: TrainState, batch: Batch, hyper: dict):
        key = jax.random.fold_in(jax.random.key(hyper["seed"]), state.step)
        moving = hyper_at(config.method, hyper, state.step, total_steps)
        gradients, (sums, statistics) = jax.grad(loss_sum, has_aux=True)(
            state.params, state.statistics, key, model.prepare(batch), moving
        )
        count = jnp.asarray(batch.index.shape[0], jnp.result_type(float))
        gradients, sums, count = parallel.sum_over_devices((gradients, sums, count))
        gradients, metrics = jax.tree.map(lambda total: total / count, (gradients, sums))
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = jax.tree.map(lambda p, u: p - hyper["learning_rate"] * u, state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        return TrainState(state.step + 1, params, statistics, optimizer_state), metrics

    return parallel.spread(step, reduced=True)


def train(config, model: Model, method: Method, data: DataSet, workdir: str) -> TrainState:
    """Trains from the newest checkpoint of ``workdir``, or from the start, to the last step.

    Raises:
      UserError: the loss or a term of it is not finite; names the step and the term.
    """
    batches = Batches(data.train, config.train.batch_size, config.seed)
    total_steps = num_steps(config, len(data.train.labels))
    state = init_state(config, model, method, first_batch(config, data))
    checkpoints = Checkpoints(workdir)
    seconds = 0.0
    if restored := checkpoints.restore(state):
        state, seconds = restored.state, restored.progress["seconds"]
        batches.set_state(restored.progress["batches"])
    start = int(state.step)
    writer = MetricWriter(workdir, from_step=start)
    try:
        loop = _Loop(config, make_step(config, model, method, total_steps), batches, writer, checkpoints, seconds)
        return loop.run(state, start, total_steps)
    finally:
        writer.close()
        checkpoints.close()


class _Loop:
    """Runs steps; looks at their metrics, logs and saves only where an interval ends."""

    def __init__(self, config, step, batches, writer, checkpoints, seconds):
        self._config, self._step, self._batches = config, step, batches
        self._writer, self._checkpoints = writer, checkpoints
        self._seconds = seconds  # trained by the runs before this one
        self._hyper = hyper_parameters(config)

    def run(self, state: TrainState, start: int, total_steps: int) -> TrainState:
        """Trains from step ``start`` to ``total_steps``."""
        pending, self._began = [], time.monotonic()
        log_every, save_every = self._config.train.log_every, self._config.train.checkpoint_every
        batch_size = self._config.train.batch_size
        with Progress(total_steps * batch_size, "examples", "train", initial=start * batch_size) as progress:
            for done in range(start + 1, total_steps + 1):
                state, metrics = self._step(state, next(self._batches), self._hyper)
                pending.append(metrics)
                last = done == total_steps
                if done % log_every == 0 or done % save_every == 0 or last:
                    loss = self._log(done, pending)
                    progress.update(len(pending) * batch_size, f"loss {loss:.2f}")
                    pending = []
                if done % save_every == 0 or last:
                    self._save(done, state)
        return state

    def _log(self, done: int, pending: list[dict]) -> float:
        """Writes the means of the steps since the last line; returns the loss."""
        values = jax.device_get(pending)
        for offset, metrics in enumerate(values):
            _check_finite(metrics, done - len(pending) + 1 + offset)
        means = {name: np.mean([metrics[name] for metrics in values]) for name in values[0]}
        self._writer.write(done, "train", means)
        return means["loss"]

    def _save(self, done: int, state: TrainState) -> None:
        seconds = self._seconds + time.monotonic() - self._began
        progress = {"batches": self._batches.get_state(), "seconds": seconds}
        self._checkpoints.save(done, state, progress, self._config.to_dict())


def _check_finite(metrics: dict, step: int) -> None:
    wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
    if wrong:
        parts = [name for name in wrong if "/" in name] or wrong
        raise UserError(
            f"step {step}: {', '.join(parts)} is not finite; stopped, the last good checkpoint is kept. "
            "A smaller learning rate, or more of alpha at the start, may help",
            exit_code=1,
        )
