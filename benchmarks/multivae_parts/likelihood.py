"""Importance-weighted bounds on the joint log-likelihood of test examples."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from multivae.metrics import LikelihoodsEvaluator, LikelihoodsEvaluatorConfig

from benchmarks.multivae_parts.case import Case
from benchmarks.multivae_parts.timing import in_turn, line, seconds_of
from mmvm_jax.evaluation import likelihood
from mmvm_jax.models.trained import map_split
from mmvm_jax.runtime import devices


def run(case: Case, samples: int, rounds: int) -> Iterator[str]:
    """Yield the lines of the joint bound alone, and of our evaluation, which adds bounds between modalities."""
    ours, whole, theirs = our_bound(case, samples), our_evaluation(case, samples), their_bound(case, samples)
    values = [float(function()) for function in (ours, theirs)]
    yield f"{'bound':12} ours {values[0]:9,.1f}  MultiVae {values[1]:9,.1f} nats"
    seconds = in_turn({"ours": seconds_of(ours), "whole": seconds_of(whole), "theirs": seconds_of(theirs)}, rounds)
    for what, own in (("joint bound", "ours"), ("evaluation", "whole")):
        yield line(what, seconds[own], seconds["theirs"], len(case.examples.index), "examples/s")


def our_bound(case: Case, samples: int):
    """The mean bound given all modalities, without arguments."""
    bounds = devices.data_parallel(likelihood._make_bounds(case.trained, samples), reduced=False)
    everything = jnp.ones((1, len(case.model.names)), bool)

    def bound():
        size, key = case.config.train.batch_size, jax.random.key(0)
        return map_split(bounds, case.trained.params, case.data.test, size, everything, key)[:, 0, 0].mean()

    return bound


def our_evaluation(case: Case, samples: int):
    """The joint bound and those of every modality given each other one, without arguments."""
    size = case.config.train.batch_size
    return lambda: likelihood.likelihood(case.trained, case.data.test, size, samples, seed=0)


def their_bound(case: Case, samples: int):
    """MultiVae's joint bound, without arguments."""
    settings = LikelihoodsEvaluatorConfig(batch_size=case.config.train.batch_size, num_samples=samples)
    return lambda: -LikelihoodsEvaluator(case.peer, case.peer_examples, eval_config=settings).joint_nll()
