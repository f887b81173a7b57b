"""Conditional generation: all modalities of a test split given its first modality, arrays to arrays."""

from collections.abc import Iterator

from multivae.data.utils import set_inputs_to_device
from torch.utils.data import DataLoader

from benchmarks.multivae_parts.case import Case
from benchmarks.multivae_parts.timing import in_turn, line, seconds_of
from mmvm_jax.data.description import describe
from mmvm_jax.data.inputs import Inputs
from mmvm_jax.data.rows import MemoryRows
from mmvm_jax.inference.predictor import Predictor


def run(case: Case, rounds: int) -> Iterator[str]:
    """Yield the line of generation."""
    seconds = in_turn({"ours": seconds_of(our_generation(case)), "theirs": seconds_of(their_generation(case))}, rounds)
    yield line("generation", seconds["ours"], seconds["theirs"], len(case.examples.index), "examples/s")


def our_generation(case: Case):
    """Generation from the first modality, without arguments."""
    predictor = Predictor(case.trained, describe(case.data), None, case.config.train.batch_size)
    first = case.model.names[0]
    given = {first: case.examples.inputs[first]}
    return lambda: list(predictor.generate_given(Inputs(predictor.description, MemoryRows(given)), seed=0))


def their_generation(case: Case):
    """The same with MultiVae, in batches of its loader."""
    loader = DataLoader(case.peer_examples, case.config.train.batch_size)
    given = case.model.names[0]

    def generate():
        for batch in loader:
            case.peer.predict(set_inputs_to_device(batch, "cpu"), cond_mod=given, gen_mod="all")

    return generate
