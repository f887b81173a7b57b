"""One step of training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mmvm_jax.errors import check_shape
from mmvm_jax.models.model import Model, Step, join_statistics
from mmvm_jax.objectives.method import Method, hyper_at
from mmvm_jax.runtime import devices
from mmvm_jax.training.optimizer import clip, learning_rate_factor, make_optimizer
from mmvm_jax.training.state import Averaged, TrainState
from mmvm_jax.types import Array, Batch

# Folded into a step's key for the noise inside networks; methods fold in less, an example's index.
_NETWORK_NOISE = 2**32 - 1


def make_step(config, model: Model, method: Method, total_steps: int) -> Callable:
    """Return one step of training: (state, batch, hyper) -> (state, metrics), with ``hyper`` of ``hyper_parameters``.

    ``runtime.devices`` applies it to each device's share of the batch. The metrics are means over the whole batch;
    ``grad_norm`` is the norm of the gradient. If ``config.train.skip_not_finite`` is positive, a step whose gradient is
    not finite changes only the number of steps, and its metric ``skipped`` is 1.
    """
    optimizer = make_optimizer(config)

    def loss_share(params, statistics, key, batch, hyper, count):
        """Return the batch's contribution to means over ``count`` examples, of the loss and of all terms."""
        batch = model.prepare(batch)
        network_key = jax.random.fold_in(key, _NETWORK_NOISE)
        in_networks = Step(batch, network_key, devices.sum_over_devices, config.train.hide_entries)
        functions = model.bind(join_statistics(params, statistics), in_networks)
        output = method.loss(key, batch, functions, hyper)
        values = {"loss": output.loss, **output.terms}
        for name, one in values.items():
            check_shape(f"{name!r} of method {method.name!r}", one, batch.index.shape)
        shares = jax.tree.map(lambda one: jnp.sum(one) / count, values)
        return shares["loss"], (shares, functions.updated_statistics)

    def step(state: TrainState, batch: Batch, hyper: dict):
        key = jax.random.fold_in(jax.random.key(hyper["seed"]), state.step)
        moving = hyper_at(config.method, hyper, state.step, total_steps)
        count = batch.index.shape[0] * devices.num_devices()

        def part(statistics, batch):
            gradients, (shares, statistics) = jax.grad(loss_share, has_aux=True)(
                state.params, statistics, key, batch, moving, count
            )
            return statistics, (gradients, shares)

        statistics, totals = _add_up(part, state.statistics, batch, config.train.accumulate)
        gradients, metrics = devices.sum_over_devices(totals)
        clipped = clip(gradients, config.optimizer.clip_norm)
        before = state.optimizer.inner if config.train.average else state.optimizer
        updates, optimizer_state = optimizer.update(clipped, before, state.params, value=metrics["loss"])
        rate = hyper["learning_rate"] * learning_rate_factor(config, state.step, total_steps)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        if config.train.average:
            average = _move_average(state.optimizer.average, params, state.step, config.train.average)
            optimizer_state = Averaged(optimizer_state, average)
        after = TrainState(state.step + 1, params, statistics, optimizer_state)
        if config.train.skip_not_finite:
            skipped = ~jnp.isfinite(metrics["grad_norm"])
            metrics["skipped"] = skipped.astype(jnp.result_type(float))
            unchanged = state._replace(step=after.step)
            after = jax.tree.map(lambda old, new: jnp.where(skipped, old, new), unchanged, after)
        return after, metrics

    return step


def _move_average(average: dict, params: dict, step: Array, decay: float) -> dict:
    """Return the moving average of the parameters. It forgets faster at first, as it starts at the initial ones."""
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), average, params)


def _add_up(part: Callable, statistics: dict, batch: Batch, number: int):
    """Apply ``part`` to a batch in ``number`` pieces, one after the other, to save memory.

    Returns:
      The running statistics after the last piece, and the sums of all other outputs of ``part``.
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
