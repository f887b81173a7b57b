"""A method with networks, weights and data, for us and for MultiVae."""

import dataclasses
from typing import Any

from benchmarks.peers import multivae as peers
from benchmarks.workloads import random_batch, workload
from mmvm_jax.data.dataset import DataSet, complete_split
from mmvm_jax.models.model import Model, make_model
from mmvm_jax.models.trained import Trained
from mmvm_jax.objectives.method import Method, choose, make_method
from mmvm_jax.training.state import TrainState, init_state
from mmvm_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Case:
    """Our method and MultiVae's with equal weights, and random examples in the form of each."""

    name: str
    config: Any
    model: Model
    method: Method
    state: TrainState
    examples: Batch
    peer: Any  # MultiVae's model
    peer_examples: Any  # MultiVae's data set

    @property
    def data(self) -> DataSet:
        """The examples as a data set, for training and for testing."""
        split = complete_split(self.examples.inputs, self.examples.labels)
        return DataSet(self.model.modalities, split, split, 1, "none", "")

    @property
    def trained(self) -> Trained:
        """Our model with its initial weights."""
        return Trained(self.model, self.method, self.state.variables)


def make(name: str, network: str, modalities: int, batch_size: int, examples: int) -> Case:
    """A method by its name in a sweep, with options that mean the same for both."""
    config, described = workload(network, modalities)
    choose(config.method, name)
    config.train.batch_size = batch_size
    config.method.mvae.num_subsets = 0  # MultiVae's default
    config.method.joint.prior_expert = name == "mopoe"  # as in MultiVae and the authors' code
    model, method = make_model(described, config.network), make_method(config.method)
    batch = random_batch(described, examples)
    state = init_state(config, model, method, batch)
    private_dim = config.method.mmvae_plus.private_dim if name == "mmvae_plus" else 0
    peer = peers.make(name, network, model, state.variables, private_dim)
    return Case(name, config, model, method, state, batch, peer, peers.dataset(model, batch))
