"""The training step and the loop around it."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmvm_jax import parallel
from mmvm_jax.checkpoints import Checkpoints, Restored
from mmvm_jax.config import evaluated_split
from mmvm_jax.data.pipeline import Batches, DataSet
from mmvm_jax.errors import Stopped, UserError
from mmvm_jax.failures import check_finite, enough_memory
from mmvm_jax.feeding import feed
from mmvm_jax.interruption import Interruption
from mmvm_jax.method import Method, final_hyper, hyper_at
from mmvm_jax.metrics import MetricWriter
from mmvm_jax.model import Model, Step, join_statistics, split_statistics
from mmvm_jax.progress import Progress
from mmvm_jax.types import Array, Batch

# Folded into a step's key for the noise inside networks; methods fold in less, an example's index.
_NETWORK_NOISE = 2**32 - 1
_AT_ONCE = 10  # steps in one program, at most: between two of them nothing waits for the host


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


def steps_at_once(config) -> int:
    """Steps in one program: as many as fit between two lines and two checkpoints, evenly and up to a limit."""
    between = math.gcd(config.train.log_every, config.train.checkpoint_every)
    return max(number for number in range(1, _AT_ONCE + 1) if between % number == 0)


def make_optimizer(config) -> optax.GradientTransformation:
    """Adam without its learning rate, which is a hyper-parameter of the step."""
    return optax.scale_by_adam(config.optimizer.b1, config.optimizer.b2, config.optimizer.eps)


def init_state(config, model: Model, method: Method, batch: Batch) -> TrainState:
    """The state before the first step; ``batch`` is for methods that start from examples."""

    def init(seed, batch):
        network_key, method_key = jax.random.split(jax.random.key(seed))
        variables = model.init(network_key) | {"method": {}}
        variables["method"] = method.init(method_key, model.prepare(batch), model.bind(variables))
        # Initialisers make float32 even where the default precision is another.
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), variables)
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
    """The newest checkpoint of a run, on whatever machines it was saved; of ``batch`` only types and shapes are read.

    Raises:
      UserError: there is none.
    """
    like = jax.eval_shape(lambda: init_state(config, model, method, batch))
    with Checkpoints(workdir) as checkpoints:
        restored = checkpoints.restore(like)
    if restored is None:
        raise UserError(f"--workdir={workdir} holds no checkpoint; train first: mmvm_jax.main --mode=train")
    return restored


def make_step(config, model: Model, method: Method, total_steps: int) -> Callable:
    """One step of training: (state, batch, hyper) -> (state, metrics), ``hyper_parameters`` given.

    It is what each device does with its share of the batch, so it is called through ``parallel``. The metrics are
    means over the whole batch, so the terms add up to the loss; ``grad_norm`` is that of the gradient. Where
    ``config.train.skip_not_finite`` allows it, a step whose gradient is not finite changes nothing but the number of
    steps, and its ``skipped`` is 1.
    """
    optimizer = make_optimizer(config)

    def loss_share(params, statistics, key, batch, hyper, count):
        """What a batch contributes to means over ``count`` examples: divided here, gradients need not be."""
        batch = model.prepare(batch)
        in_networks = Step(batch, jax.random.fold_in(key, _NETWORK_NOISE), parallel.sum_over_devices)
        functions = model.bind(join_statistics(params, statistics), in_networks)
        output = method.loss(key, batch, functions, hyper)
        shares = jax.tree.map(lambda values: jnp.sum(values) / count, {"loss": output.loss, **output.terms})
        return shares["loss"], (shares, functions.updated_statistics)

    def step(state: TrainState, batch: Batch, hyper: dict):
        key = jax.random.fold_in(jax.random.key(hyper["seed"]), state.step)
        moving = hyper_at(config.method, hyper, state.step, total_steps)
        count = batch.index.shape[0] * parallel.num_devices()

        def part(statistics, batch):
            gradients, (shares, statistics) = jax.grad(loss_share, has_aux=True)(
                state.params, statistics, key, batch, moving, count
            )
            return statistics, (gradients, shares)

        statistics, totals = _add_up(part, state.statistics, batch, config.train.accumulate)
        gradients, metrics = parallel.sum_over_devices(totals)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = jax.tree.map(lambda p, u: p - hyper["learning_rate"] * u, state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        after = TrainState(state.step + 1, params, statistics, optimizer_state)
        if config.train.skip_not_finite:
            skipped = ~jnp.isfinite(metrics["grad_norm"])
            metrics["skipped"] = skipped.astype(jnp.result_type(float))
            before = state._replace(step=after.step)
            after = jax.tree.map(lambda old, new: jnp.where(skipped, old, new), before, after)
        return after, metrics

    return step


def _add_up(part: Callable, statistics: dict, batch: Batch, number: int):
    """``part`` of a batch, computed piece by piece so that only one piece at a time needs memory.

    Returns:
      The running statistics after the last piece, and the sums of all else that ``part`` returned.
    """
    if number == 1:
        return part(statistics, batch)
    cut = lambda leaf, axis: jnp.stack(jnp.split(leaf, number, axis))
    pieces = jax.tree.map(lambda leaf: cut(leaf, 0), batch._replace(present=batch.index))
    pieces = pieces._replace(present=cut(batch.present, 1))

    def add(carry, piece):
        statistics, totals = carry
        statistics, more = part(statistics, piece)
        return (statistics, jax.tree.map(jnp.add, totals, more)), None

    shapes = jax.eval_shape(part, statistics, jax.tree.map(lambda leaf: leaf[0], pieces))[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, (statistics, zeros), pieces)[0]


def train(
    config, model: Model, method: Method, data: DataSet, workdir: str, held_out: Callable | None = None
) -> TrainState:
    """Trains from the newest checkpoint of ``workdir``, or from the start, to the last step.

    Args:
      config: of the run.
      model: to be trained.
      method: by which.
      data: its training split is read.
      workdir: folder of the run.
      held_out: (state, hyper) -> numbers, logged with every checkpoint under the name of the evaluated split.

    Raises:
      UserError: the loss, a term of it or the gradient is not finite, more often than may be skipped; names the step
        and the term. Or memory does not suffice; names what would help. Or more steps were done already.
      Stopped: a signal asked for it; what was done is saved.
    """
    batches = feed(data.train, config.train.batch_size, config.seed)
    total_steps = num_steps(config, len(data.train.labels))
    state, progress = init_state(config, model, method, first_batch(config, data)), {}
    with Interruption() as interruption, Checkpoints(workdir) as checkpoints, enough_memory(config):
        if restored := parallel.from_first(checkpoints.restore, state):
            state, progress = restored.state, restored.progress
            batches.position.set_state(progress["batches"])
        start, state = int(state.step), parallel.on_all_devices(state)
        if start > total_steps:
            raise UserError(
                f"--workdir={workdir} holds {start} steps of training; allowed: no fewer, not {total_steps}"
            )
        with parallel.first_then_others(MetricWriter, workdir, config, start) as writer:  # its tracker may fail
            steps = parallel.spread_steps(make_step(config, model, method, total_steps), batches.read)
            loop = _Loop(config, steps, batches, writer, checkpoints, interruption, progress, held_out)
            state = loop.run(state, start, total_steps)
    if parallel.in_any_process(interruption.requested):  # during the last steps
        raise Stopped(f"stopped and saved at step {total_steps}; the same command goes on from there")
    return state


class _Loop:
    """Runs steps, several at once; looks at their metrics, logs and saves only where an interval ends."""

    def __init__(self, config, steps, batches, writer, checkpoints, interruption, progress, held_out):
        self._config, self._steps, self._batches, self._held_out = config, steps, batches, held_out
        self._writer, self._checkpoints, self._interruption = writer, checkpoints, interruption
        # Of the runs before this one: how long they trained, and the steps that they left out.
        self._seconds, self._skipped = progress.get("seconds", 0.0), progress.get("skipped", 0)
        self._hyper = hyper_parameters(config)
        self._at_once = steps_at_once(config)

    def run(self, state: TrainState, done: int, total_steps: int) -> TrainState:
        """Trains until ``total_steps`` steps are done."""
        self._began, batch_size = time.monotonic(), self._config.train.batch_size
        pending, ready, raised = [], [], 0
        with Progress(total_steps * batch_size, "examples", "train", initial=done * batch_size) as progress:
            while done < total_steps:
                items = self._batches.take(min(self._at_once - done % self._at_once, total_steps - done))
                flag, table = self._interruption.requested, self._batches.table
                state, metrics, flags = self._steps(state, items, table, self._hyper, flag)
                done += len(items)
                self._log(ready, progress)  # while the steps just begun are under way
                stop, raised = bool(raised), flags  # whether any process wanted to when the steps before began
                pending, ready = [*pending, (done, metrics)], []
                whole = done % self._config.train.checkpoint_every == 0 or done == total_steps
                save = stop or whole
                if save or done % self._config.train.log_every == 0:
                    pending, ready = [], pending
                if save:
                    self._log(ready, progress)
                    ready = []
                    if whole and self._held_out:
                        values = self._held_out(state, self._hyper)
                        self._writer.write(done, evaluated_split(self._config), values)
                    parallel.from_first(self._save, done, state)
                if stop:
                    raise Stopped(f"stopped and saved at step {done}; the same command goes on from there")
        return state

    def _log(self, ready: list[tuple[int, dict]], progress: Progress) -> None:
        """Writes the means of some steps as one line, if there are any."""
        if not ready:
            return
        chunks = [metrics for _, metrics in ready]
        values = {name: np.concatenate([np.atleast_1d(chunk[name]) for chunk in chunks]) for name in chunks[0]}
        done, count = ready[-1][0], len(values["loss"])
        skipped = values.pop("skipped", np.zeros(count)).astype(bool)
        limit = self._config.train.skip_not_finite
        check_finite(values, done - count + 1, skipped & (self._skipped + np.cumsum(skipped) <= limit), limit)
        self._skipped += int(skipped.sum())
        means = {name: np.mean(steps[~skipped]) if not skipped.all() else np.nan for name, steps in values.items()}
        self._writer.write(done, "train", means | ({"skipped": self._skipped} if limit else {}))
        progress.update(count * self._config.train.batch_size, f"loss {means['loss']:.2f}")

    def _save(self, done: int, state: TrainState) -> None:
        seconds = self._seconds + time.monotonic() - self._began
        batches = self._batches.position.get_state()
        progress = {"batches": batches, "seconds": seconds, "skipped": self._skipped}
        self._checkpoints.save(done, state, progress, self._config.to_dict())
